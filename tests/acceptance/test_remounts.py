"""Volumes that come back with other inodes: the same bytes, size and time, by each option of a root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.store import SLICE_BYTES
from worker.runtime.concurrency import MAX_IN_MEMORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import Installation
    from tests.support.job import Job

WORKERS = 2
SLICES = WORKERS * MAX_IN_MEMORY + 8
"""More than all workers have open at once: some are begun after the file has changed."""
SIZE = SLICES * SLICE_BYTES


def remounted(path: Path, content: bytes | None = None) -> None:
    """Give a file another inode, as a remount does; with other content, as a forger does."""
    other, before = path.with_name(path.name + ".new"), path.stat()
    other.write_bytes(path.read_bytes() if content is None else content)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert after.st_ino != before.st_ino


def workers(site: Installation, fingerprint: str) -> None:
    """Have two workers whose root says this."""
    roots = site.roots()
    roots["media"]["fingerprint"] = fingerprint
    site.workers(WORKERS, SLICEWAY_STORES_FILE=site.stores_file(f"stores-{fingerprint}", roots=roots))


def half_sent(site: Installation, *contents: bytes) -> Job:
    """A job whose file gets another inode while slices of it are on their way."""
    job, let_go = site.enqueue_held(SIZE, requests=8)
    remounted(job.path, *contents)
    let_go()
    return job


def failed_by_identity(site: Installation, *contents: bytes) -> Job:
    """A job that failed since its file has another inode now, with some of its slices at the store."""
    job = half_sent(site, *contents)
    assert job.fails() == "source_changed"
    site.until(lambda: all(row["state"] != "sending" for row in job.slices), "what was on its way recorded")
    assert 8 <= job.done() < SLICES
    return job


def test_an_upload_goes_on_over_a_remount_where_the_root_says_size_and_time(site: Installation) -> None:
    workers(site, "size-mtime")
    job = half_sent(site)
    job.succeeds()
    assert site.store.object_at(job.key) == job.content
    assert (job.row["epoch"], job.sent_twice_bytes()) == (1, 0)


def test_an_upload_fails_by_a_remount_where_the_root_is_strict_and_names_the_option(site: Installation) -> None:
    workers(site, "strict")
    job = failed_by_identity(site)
    error = job.view["error"]
    assert "identity" in error["message"]
    assert 'fingerprint = "size-mtime"' in error["advice"]


def test_a_retry_goes_on_after_the_root_was_set_to_size_and_time(site: Installation) -> None:
    workers(site, "strict")
    job = failed_by_identity(site)
    workers(site, "size-mtime")
    job.act("retry")
    job.succeeds()
    assert site.store.object_at(job.key) == job.content
    assert (job.row["epoch"], job.sent_twice_bytes()) == (1, 0)


def test_a_retry_under_a_strict_root_uploads_the_file_as_it_is_now(site: Installation) -> None:
    workers(site, "strict")
    job = failed_by_identity(site, bytes(SIZE))
    job.content = bytes(SIZE)
    job.act("retry")
    job.succeeds()
    assert site.store.object_at(job.key) == job.content
    assert (job.row["epoch"], job.row["session_losses"]) == (2, 0)
    [given_up] = [event for event in job.events if event["kind"] == "session_lost"]
    assert given_up["cause"]["code"] == "source_changed"


def test_a_retry_after_size_and_time_were_set_finds_a_file_that_was_rewritten(site: Installation) -> None:
    workers(site, "strict")
    job = failed_by_identity(site)
    workers(site, "size-mtime")
    job.content = bytes(SIZE)
    job.path.write_bytes(job.content)
    job.act("retry")
    job.succeeds()
    assert site.store.object_at(job.key) == job.content
    assert job.row["epoch"] == 2


def test_a_remount_between_two_attempts_of_a_job_that_failed_otherwise(site: Installation) -> None:
    workers(site, "size-mtime")
    job = site.enqueue(SIZE, site.fresh_key(), attributes="mine")
    rule = site.store.control.add_rule("error", op="finish", path=job.key, status=400, code=-5999)
    job.fails()
    remounted(job.path)
    site.store.control.remove_rule(rule)
    job.act("retry")
    job.succeeds()
    assert site.store.object_at(job.key) == job.content
    assert (job.row["epoch"], job.sent_twice_bytes()) == (1, 0)


def test_back_to_strict_in_the_middle_fails_what_was_remounted_meanwhile(site: Installation) -> None:
    workers(site, "size-mtime")
    key = site.fresh_key()
    site.store.hold("data", key, offset=0)
    job = site.enqueue(SIZE, key)
    site.store.held("data", job.key)
    remounted(job.path)
    site.until(lambda: job.done() == SLICES - 1, "all but the one that is held")
    workers(site, "strict")
    site.store.control.clear_rules()
    site.store.control.release()
    assert job.fails() == "source_changed"
    assert not job.asked("finish")


def test_a_change_to_strict_and_back_is_no_matter_to_a_file_that_stays(site: Installation) -> None:
    key = site.fresh_key()
    workers(site, "size-mtime")
    site.store.hold("data", key, offset=0)
    job = site.enqueue(SIZE, key)
    site.store.held("data", job.key)
    site.until(lambda: job.done() == SLICES - 1, "all but the one that is held")
    workers(site, "strict")
    site.store.control.clear_rules()
    site.store.control.release()
    job.succeeds()
    assert job.row["epoch"] == 1


def test_a_file_that_was_gone_and_is_back_is_gone_on_with(site: Installation) -> None:
    workers(site, "strict")
    job, let_go = site.enqueue_held(SIZE, requests=8)
    elsewhere = job.path.rename(site.folder / "elsewhere")
    let_go()
    assert job.fails() == "source_gone"
    site.until(lambda: all(row["state"] != "sending" for row in job.slices), "what was on its way recorded")
    elsewhere.rename(job.path)
    job.act("retry")
    job.succeeds()
    assert (job.row["epoch"], job.sent_twice_bytes()) == (1, 0)
