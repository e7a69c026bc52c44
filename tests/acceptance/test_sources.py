"""Files that change while they are uploaded, and roots that are not mounted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.installation import Installation


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, SLICE_BYTES)


def replace(path: Path) -> None:
    other = path.with_name(path.name + ".new")
    other.write_bytes(path.read_bytes())
    stat = path.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)


def rewrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def vanish(path: Path) -> None:
    path.unlink()


CHANGES = [
    (grow, "source_changed"),
    (shrink, "source_changed"),
    (replace, "source_changed"),
    (rewrite, "source_changed"),
    (vanish, "source_gone"),
]


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)


@pytest.mark.parametrize(("change", "code"), CHANGES)
def test_a_file_that_changes_between_slices_fails_its_job(
    site: Installation, change: Callable[[Path], None], code: str
) -> None:
    job, let_go = site.enqueue_held(12 * MIB, requests=8)
    change(job.path)
    let_go()
    assert job.fails() == code
    assert not job.asked("finish")
    assert site.store.object_at(job.key) is None


@pytest.mark.parametrize(("change", "code"), CHANGES)
def test_a_file_that_changes_after_its_last_slice_was_read_fails_its_job(
    site: Installation, change: Callable[[Path], None], code: str
) -> None:
    job, let_go = site.enqueue_held(1 * MIB, requests=2)
    change(job.path)
    let_go()
    assert job.fails() == code
    assert not job.asked("finish")


def test_a_changed_file_is_uploaded_as_it_is_now_after_a_retry(site: Installation) -> None:
    job, let_go = site.enqueue_held(6 * MIB, requests=8)
    grow(job.path)
    let_go()
    job.fails()
    job.content = job.path.read_bytes()
    job.act("retry")
    job.succeeds()
    assert job.row["epoch"] == 2


def test_a_missing_file_in_a_root_that_is_there_fails_its_job(site: Installation) -> None:
    job = site.submit(JobSpec("nowhere", "nowhere"), b"")
    assert job.fails() == "source_gone"


def from_volume(site: Installation, path: str) -> Job:
    """A job whose file is, or will be, on the volume."""
    job = site.submit(JobSpec(path, path, root="volume"), b"")
    job.path = site.volume / path
    return job


@pytest.mark.parametrize("mount_point", [False, True])
def test_a_root_that_is_not_mounted_makes_its_job_wait(site: Installation, mount_point: bool) -> None:
    site.unmount()
    if mount_point:
        site.volume.mkdir()
    job = from_volume(site, f"late-{mount_point}")
    site.until(lambda: (job.row["error"] or {}).get("code") == "root_unavailable", "the root missed")
    assert job.state == "queued"
    job.content = site.file(job.key, 1 * MIB, site.volume)
    job.succeeds()
    assert job.row["attempts"] == 0


@pytest.mark.parametrize("refused", [False, True])
def test_a_cancel_of_what_was_never_read_waits_for_no_store(site: Installation, refused: bool) -> None:
    """Without its root it has begun nothing; an init that the cancel cuts off is asked for, but not for a day."""
    site.unmount()
    job = from_volume(site, f"never-{refused}")
    site.until(lambda: (job.row["error"] or {}).get("code") == "root_unavailable", "the root missed")
    if refused:
        site.store.control.add_rule("error", path=job.key, status=403, code=-97)
    at_once = job.act("cancel")["state"] == "cancelled"
    job.reaches("cancelled")
    assert ("session_left_open" in job.kinds) == (refused and not at_once)
    assert not job.asked("init")


def test_a_root_that_goes_away_in_the_middle_of_an_upload(site: Installation) -> None:
    site.unmount()
    content = site.file("split", 24 * MIB, site.volume)  # more than both workers have open at once
    let_go = site.store.hold("data", "split")
    job = from_volume(site, "split")
    job.content = content
    site.store.held("data", job.key, 8)
    elsewhere = site.volume.rename(site.folder / "elsewhere")
    let_go()
    site.until(lambda: (job.row["error"] or {}).get("code") == "root_unavailable", "the root missed")
    assert job.state == "uploading"
    elsewhere.rename(site.volume)
    result = job.succeeds()
    assert result["slices"]["failed_attempts"] == 0
    assert job.sent_twice_bytes() == 0


def test_a_job_with_a_source_of_a_later_release_waits_for_it(site: Installation) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("init", key, count=1)
    job = site.enqueue(2 * MIB, key)
    site.store.held("init", key)
    site.sql("""UPDATE job SET source = '{"kind": "url", "url": "https://host/file"}' WHERE id = %(job)s""", job=job.id)
    let_go()
    site.until(lambda: (job.row["error"] or {}).get("code") == "root_unavailable", "the job waits")
    assert "reads no source of kind 'url'" in job.row["error"]["message"]
    assert job.state == "uploading"
    site.sql(
        """UPDATE job SET source = jsonb_build_object('kind', 'file', 'root', 'media', 'path', %(path)s::text)
           WHERE id = %(job)s""",
        job=job.id,
        path=key,
    )
    job.succeeds()
