"""Checkpoints that complete together share a commit, and each thread gets its own result."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest

from worker.errors import StaleClaim
from worker.jobs.leases import Acknowledged, Claim
from worker.tasks.checkpoint_batcher import BATCH_TARGET, Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.db.pool import Database
    from worker.jobs.rows import Checkpointed

JOB, WORKER = uuid4(), uuid4()


class SlowDatabase:
    """A database whose commits wait for the test; it refuses the slices in `stale`, and keeps each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.stale: set[int] = set()
        self.error: Exception | None = None
        self.arrived = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    @contextmanager
    def connection(self) -> Iterator[SlowDatabase]:
        yield self

    def execute(self, _: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        asked = json.loads(params["slices"])
        self.batches.append([slice_["number"] for slice_ in asked])
        self.arrived.release()
        assert self.go_on.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        rows = [{name: slice_[name] for name in ("number", "token")} for slice_ in asked]
        return [
            row
            | {
                "job_id": UUID(slice_["job_id"]),
                "state": f"{slice_['job_id']} {row['token']}",
                "slices_left": row["number"],
            }
            for row, slice_ in zip(rows, asked, strict=True)
            if row["number"] not in self.stale
        ]


class Writers:
    """Threads that write checkpoints at the same time."""

    def __init__(self, wait_s: float = 60.0) -> None:
        self.db = SlowDatabase()
        self.more = False
        self.checkpoints = Checkpoints(cast("Database", self.db), WORKER, more=lambda: self.more, wait_s=wait_s)
        self.pool = ThreadPoolExecutor(8)

    def write(self, number: int, *, token: int = 1, job: UUID = JOB) -> Future[Checkpointed]:
        done = Acknowledged(Claim(job, number, token, 1, WORKER), "tag", None)
        return self.pool.submit(self.checkpoints.write, done)

    def first_in_commit(self) -> Future[Checkpointed]:
        """Start a commit that waits for the test."""
        first = self.write(0)
        assert self.db.arrived.acquire(timeout=30)
        return first

    def wait_for_waiting(self, count: int) -> None:
        while True:
            with self.checkpoints._joining:
                if len(self.checkpoints._waiting) == count:
                    return

    def end_commits(self, count: int) -> None:
        for _ in range(count):
            self.db.go_on.release()


@pytest.fixture
def writers(request: pytest.FixtureRequest) -> Iterator[Writers]:
    made = Writers(**getattr(request, "param", {}))
    yield made
    made.end_commits(100)
    made.pool.shutdown()


def test_checkpoints_that_arrive_during_a_commit_share_the_next_one(writers: Writers) -> None:
    first = writers.first_in_commit()
    others = [writers.write(number) for number in (1, 2, 3)]
    writers.wait_for_waiting(3)
    writers.end_commits(2)
    assert first.result(30).slices_left == 0
    assert [other.result(30).slices_left for other in others] == [1, 2, 3]
    assert [sorted(batch) for batch in writers.db.batches] == [[0], [1, 2, 3]]


def test_a_stale_checkpoint_fails_alone(writers: Writers) -> None:
    first = writers.first_in_commit()
    writers.db.stale = {2}
    others = {number: writers.write(number) for number in (1, 2, 3)}
    writers.wait_for_waiting(3)
    writers.end_commits(2)
    with pytest.raises(StaleClaim, match=f"{JOB} slice 2: token 1"):
        others[2].result(30)
    assert (first.result(30), others[1].result(30).slices_left, others[3].result(30).slices_left)[1:] == (1, 3)


def test_an_error_reaches_every_checkpoint_of_its_commit_and_no_other(writers: Writers) -> None:
    first = writers.first_in_commit()
    others = [writers.write(number) for number in (1, 2)]
    writers.wait_for_waiting(2)
    writers.end_commits(1)
    first.result(30)
    assert writers.db.arrived.acquire(timeout=30)
    later = writers.write(3)
    writers.wait_for_waiting(1)
    writers.db.error = psycopg.OperationalError("the database is away")
    writers.end_commits(1)
    for other in others:
        with pytest.raises(psycopg.OperationalError, match="away"):
            other.result(30)
    assert writers.db.arrived.acquire(timeout=30)
    writers.db.error = None
    writers.end_commits(1)
    assert later.result(30).slices_left == 3


def test_a_checkpoint_can_be_rewritten_after_an_error(writers: Writers) -> None:
    writers.db.error = psycopg.OperationalError("the database is away")
    writers.end_commits(1)
    with pytest.raises(psycopg.OperationalError):
        writers.write(4).result(30)
    writers.db.error = None
    writers.end_commits(1)
    assert writers.write(4).result(30).slices_left == 4
    assert writers.db.batches == [[4], [4]]


def test_two_jobs_slices_of_one_number_are_distinguished(writers: Writers) -> None:
    other_job = uuid4()
    first = writers.first_in_commit()
    mine, theirs = writers.write(5), writers.write(5, job=other_job)
    writers.wait_for_waiting(2)
    writers.end_commits(2)
    first.result(30)
    assert (mine.result(30).state, theirs.result(30).state) == (f"{JOB} 1", f"{other_job} 1")


def test_an_old_claim_does_not_pass_for_the_new_one(writers: Writers) -> None:
    """The process lost the slice and claimed it a second time; both threads share one commit."""
    first = writers.first_in_commit()
    old, new = writers.write(5, token=1), writers.write(5, token=2)
    writers.wait_for_waiting(2)
    writers.end_commits(2)
    first.result(30)
    assert (old.result(30).state, new.result(30).state) == (f"{JOB} 1", f"{JOB} 2")


def test_every_one_of_many_is_written_once(writers: Writers) -> None:
    writers.end_commits(100)
    written = [writers.write(number) for number in range(100)]
    assert [one.result(30).slices_left for one in written] == list(range(100))
    assert sorted(number for batch in writers.db.batches for number in batch) == list(range(100))


def test_while_others_are_being_sent_a_commit_waits_for_a_full_batch(writers: Writers) -> None:
    writers.more = True
    writers.end_commits(1)
    written = [writers.write(number) for number in range(BATCH_TARGET)]
    assert [one.result(30).slices_left for one in written] == list(range(BATCH_TARGET))
    assert [sorted(batch) for batch in writers.db.batches] == [list(range(BATCH_TARGET))]


def test_the_last_that_was_being_sent_ends_the_wait(writers: Writers) -> None:
    writers.more = True
    writers.end_commits(1)
    first = writers.write(0)
    writers.wait_for_waiting(1)
    writers.more = False
    second = writers.write(1)
    assert (first.result(30).slices_left, second.result(30).slices_left) == (0, 1)
    assert [sorted(batch) for batch in writers.db.batches] == [[0, 1]]


@pytest.mark.parametrize("writers", [{"wait_s": 0.01}], indirect=True)
def test_a_commit_does_not_wait_longer_than_the_delay(writers: Writers) -> None:
    writers.more = True
    writers.end_commits(1)
    assert writers.write(7).result(30).slices_left == 7
