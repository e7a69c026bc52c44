"""An upload of other content, begun without a digest, looks like half of the file: none of it is used."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.other_client import SLICE_BYTES
from tests.support.deadline import DEADLINE_S
from tests.support.installation import MIB
from tests.support.job import JobSpec
from tests.support.store import BUCKET
from worker.local.process import wait_until

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.job import Job

SIZE = 24 * MIB + 5
RATE = 1_500_000
#: What the jobs say beside `verify: file`.
TERMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with attributes": {"attributes": "their own"},
    "with overwrite": {"overwrite": True},
    "with attributes and overwrite": {"attributes": "their own", "overwrite": True},
}


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)
    site.store.control.change(rate_bytes_per_s=RATE)


def replace_file(job: Job) -> bytes:
    """Put another file of equal size in the place of the job's."""
    content = os.urandom(len(job.content))
    beside = job.path.with_suffix(".new")
    beside.write_bytes(content)
    beside.rename(job.path)
    return content


def upload_anew(site: Installation, first: Job, content: bytes, terms: dict[str, Any]) -> None:
    """Upload what is there now to the same key: the object is that, or the job fails and there is none."""
    site.store.control.change(rate_bytes_per_s=None)
    second = site.submit(JobSpec(first.path.name, first.key, {"verify": "file", **terms}), content)
    second.reaches("succeeded", "failed")
    there = site.store.object_at(first.key)
    if second.state == "succeeded":
        assert there == content
        assert second.row["result"]["verified"] == "file"
    else:
        assert there is None, "a failed job has published something"


@pytest.mark.parametrize("name", TERMS)
def test_half_of_the_files_older_version_is_not_gone_on_with(site: Installation, name: str) -> None:
    terms = TERMS[name]
    first = site.enqueue(SIZE, slice_size=SLICE_BYTES, **terms)
    site.until(lambda: first.done() >= 2, "two slices at the store")
    content = replace_file(first)
    assert first.fails() == "source_changed"
    site.until(lambda: not any(row["state"] == "sending" for row in first.slices), "the last slices in flight")
    assert first.key in site.store.unfinished(), "the session of the older version is to stay"
    upload_anew(site, first, content, terms)


@pytest.mark.parametrize("name", TERMS)
def test_half_of_what_another_client_was_killed_over_is_not_gone_on_with(site: Installation, name: str) -> None:
    key = site.fresh_key()
    theirs = site.folder / "theirs"
    theirs.write_bytes(os.urandom(SIZE))
    argv = [sys.executable, "-m", "tests.acceptance.other_client", site.store.url, key, str(theirs)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        sessions = {client.stdout.readline().strip() for _ in range(3)}
        client.kill()
    [session] = sessions
    assert site.store.unfinished()[key]["session"] == session
    site.store.planted.add(session)
    site.store.control.change(rate_bytes_per_s=None)
    assert wait_until(lambda: not site.store.requests(path=key, state="receiving"), timeout_s=DEADLINE_S)
    job = site.enqueue(SIZE, key, verify="file", **TERMS[name])
    job.reaches("succeeded", "failed")
    there = site.store.object_at(key)
    assert there == (job.content if job.state == "succeeded" else None)


@pytest.mark.parametrize(
    "setting", [{}, {"bare_answers": True}, {"serial_upload": True}], ids=["plain", "bare", "serial"]
)
def test_what_the_list_says_is_of_the_same_file_is_gone_on_with(site: Installation, setting: dict[str, bool]) -> None:
    """-4019 is not the end of it: the list names the sha that the upload was begun with, and that is ours."""
    site.store.control.change(**setting)
    try:
        go_on_with_the_same(site, site.fresh_key())
    finally:
        site.store.control.change(**dict.fromkeys(setting, False))


def go_on_with_the_same(site: Installation, key: str) -> None:
    """Upload a file to a key where half of it is already: only the other half is sent, in the same session."""
    content = site.file(key, 4 * MIB)
    site.store.control.add_rule("error", op="data", path=key, offset=2 * MIB, status=400, code=-5999)
    first = site.enqueue(4 * MIB, key, content=content, verify="file")
    first.fails()
    site.until(lambda: not any(row["state"] == "sending" for row in first.slices), "the last slices in flight")
    site.store.calm()
    done, seen = first.done(), len(first.asked("data"))
    assert done > 0
    [upload] = [each for each in site.store.control.uploads(BUCKET) if each["path"] == key]
    second = site.enqueue(4 * MIB, key, content=content, verify="file")
    assert second.succeeds()["proof"] == "digest"
    assert len(second.asked("data")) - seen == 4 - done
    assert {entry["session"] for entry in second.asked("data") + second.asked("finish")} == {upload["session"]}
    [opened] = [event for event in second.events if event["kind"] == "session_opened"]
    assert opened["cause"] | {"held": done, "held_by": "digest"} == opened["cause"]


def test_a_list_that_names_no_sha_proves_nothing(site: Installation) -> None:
    """The same bytes, but nothing in the store's answers proves it: they are sent again."""
    content = site.file("unnamed", 4 * MIB)
    site.store.control.change(sha_in_list=False)
    try:
        site.store.control.add_rule("error", op="data", path="unnamed", offset=2 * MIB, status=400, code=-5999)
        first = site.enqueue(4 * MIB, "unnamed", content=content, verify="file")
        first.fails()
        site.until(lambda: not any(row["state"] == "sending" for row in first.slices), "the last slices in flight")
        site.store.calm()
        second = site.enqueue(4 * MIB, "unnamed", content=content, verify="file")
        assert second.succeeds()["proof"] == "digest"
        assert "foreign_session_discarded" in second.kinds
    finally:
        site.store.control.change(sha_in_list=True)
