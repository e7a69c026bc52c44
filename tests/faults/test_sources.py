"""Files and volumes that change under an upload: with forged times, or for a while."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.faults.network import SCALED
from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.installation import Installation


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(1, **SCALED)


def forge(path: Path) -> bytes:
    """Write other bytes in place, with the same size, time and inode."""
    before = path.stat()
    content = bytes(byte ^ 0xFF for byte in path.read_bytes())
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    return content


def test_a_forged_change_in_the_middle_never_makes_an_object_of_two_versions(site: Installation) -> None:
    key = site.fresh_key()
    release = site.store.hold("data", key)
    job = site.enqueue(32 * MIB, key, verify="file")  # more than is read ahead
    site.store.held("data", key, 4)
    forged = forge(job.path)
    release()
    assert job.fails() == "digest_mismatch"
    assert site.store.object_at(key) is None
    job.content = forged
    job.act("retry")
    job.succeeds()


def test_a_file_that_is_missing_between_two_reads_is_not_noticed(site: Installation) -> None:
    key = site.fresh_key()
    release = site.store.hold("data", key, offset=SLICE_BYTES)
    job = site.enqueue(1 * MIB, key)
    site.store.held("data", key)
    away = job.path.rename(job.path.with_name("away"))
    site.until(lambda: job.row["slices_left"] == 1, "the other slice")
    away.rename(job.path)
    release()
    job.succeeds()
    assert job.sent_twice_bytes() == 0


@pytest.mark.parametrize("other", [False, True])
def test_after_a_retry_the_same_file_continues_and_another_one_starts_anew(site: Installation, *, other: bool) -> None:
    key = site.fresh_key()
    release = site.store.hold("data", key)
    job = site.enqueue(4 * MIB, key)
    site.store.held("data", key, 4)
    away = job.path.rename(job.path.with_name("away"))
    release()
    assert job.fails() == "source_gone"
    away.rename(job.path)
    if other:
        job.content = bytes(reversed(job.content))
        job.path.write_bytes(job.content)
    site.until(lambda: all(row["state"] != "sending" for row in job.slices), "what was in flight")
    job.act("retry")
    job.succeeds()
    assert job.row["epoch"] == (2 if other else 1)  # nothing of the old session is kept for another file
    assert other or job.sent_twice_bytes() == 0


@contextmanager
def mounted(folder: Path, place: Path) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Mount a folder; yields a function that unmounts it while it is in use, and one that mounts it again."""
    place.mkdir(exist_ok=True)

    def mount() -> None:
        subprocess.run(["mount", "--bind", folder, place], check=True)

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)

    mount()
    yield unmount, mount
    with suppress(subprocess.CalledProcessError):
        unmount()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED HERE: real unmounting; only root can")
@pytest.mark.parametrize(
    ("op", "when", "state"),
    [("init", "after", "uploading"), ("data", "before", "finishing"), ("list", "after", "succeeded")],
)
def test_a_volume_unmounted_in_the_middle_is_waited_for(site: Installation, op: str, when: str, state: str) -> None:
    """Unmounted before the first read (after init), before the finish (in the last slice), after all reads."""
    site.unmount()
    key = site.fresh_key()
    folder = site.folder / f"volume-{key}"
    content = site.file(key, 2 * MIB, folder)
    with mounted(folder, site.volume) as (unmount, mount):
        release = site.store.hold(op, key, when=when, **({"offset": SLICE_BYTES} if op == "data" else {}))
        job = site.submit(JobSpec(key, key, root="volume"), content)
        job.path = site.volume / key
        site.store.held(op, key)
        if op == "data":
            site.until(lambda: job.row["slices_left"] == 1, "the other slices")
        unmount()
        release()
        if state != "succeeded":
            site.until(lambda: code(job) == "root_unavailable", "the missing volume")
            assert job.state == state
            mount()
        result = job.succeeds()
    assert (job.row["attempts"], job.row["epoch"], result["slices"]["failed_attempts"]) == (0, 1, 0)
    assert job.sent_twice_bytes() == 0


def code(job: Job) -> str | None:
    error = job.row["error"]
    return None if error is None else str(error["code"])
