"""An abandoned job ends without its store, and not before every request of it must be over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import (
    AT_ONCE,
    AT_ONCE_LEASES,
    LEASE,
    SESSION,
    abandon_job,
    cancel_job,
    retry_job,
    wait_until_blocked,
)
from worker.errors import StaleClaim
from worker.jobs import control, transitions
from worker.jobs.leases import Claim
from worker.jobs.states import JobState
from worker.jobs.transitions import LongestLeases

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase

LONG = LongestLeases(init_s=100.0, finish_s=200.0, slice_slack_s=50.0, low_speed_bytes_per_s=1)


def abandon(db: JobsDatabase, job: UUID, **kwargs: Any) -> JobState:
    with db.connection() as tx:
        (result,) = control.cancel(tx, [job], "o", abandon=True, **kwargs)
    return result.state_or_raise()


def end(db: JobsDatabase, longest: LongestLeases = LONG) -> list[UUID]:
    with db.connection() as tx:
        return transitions.end_abandoned(tx, longest)


def age(db: JobsDatabase, job: UUID, seconds: float) -> None:
    """Let the abandonment be so long ago."""
    db.run("UPDATE job SET abandoned_at = abandoned_at - make_interval(secs => %s) WHERE id = %s", seconds, job)


def test_a_job_of_which_nothing_is_under_way_ends_with_the_next_turn(db: JobsDatabase) -> None:
    job = db.uploading(3, held=[0])
    assert abandon(db, job, cause={"reason": "the store is gone"}) == "cancelling"
    with db.connection() as tx:
        assert not transitions.promote_due(tx)  # no abort
    assert end(db) == [job]
    row = db.row(job)
    assert (row["state"], row["step"], row["session"], row["slices_left"]) == ("cancelled", "idle", None, None)
    assert row["finished_at"] is not None
    assert "was not asked" in row["result"]["session_left_open"]
    assert db.slices(job) == []
    assert db.kinds(job)[-4:] == ["cancel_requested", "abandon_requested", "session_left_open", "cancelled"]
    requested, abandoned, left, _ = db.events(job)[-4:]
    assert requested["cause"] == abandoned["cause"] == {"reason": "the store is gone"}
    assert (left["cause"]["session"], left["cause"]["target"]) == (SESSION, row["target"])
    assert end(db) == []
    assert db.enqueue(key=row["key"])  # the target is free


def test_a_job_that_has_begun_nothing_ends_with_the_request(db: JobsDatabase) -> None:
    job = db.enqueue()
    assert abandon(db, job) == "cancelled"
    assert db.columns(job, "abandoned_at", "result") == (None, None)


def test_a_job_that_is_being_cancelled_can_be_abandoned(db: JobsDatabase) -> None:
    """Wherever its abort stands, unless a worker is at it: that one is waited for."""
    idle, pending, dispatched, running = (db.uploading(1) for _ in range(4))
    for job in (idle, pending, dispatched, running):
        with db.connection() as tx:
            cancel_job(tx, job)
            if job != idle:
                assert transitions.promote_due(tx)
    with db.connection() as tx:
        transitions.dispatch(tx, [dispatched, running], [])
        transitions.claim_step(tx, db.claim_of(running), JobState.CANCELLING, LEASE)
    message = db.claim_of(dispatched)
    for job in (idle, pending, dispatched, running):
        assert abandon(db, job) == "cancelling"
        assert db.kinds(job).count("cancel_requested") == 1
    assert set(end(db)) == {idle, pending, dispatched}
    with db.connection() as tx, pytest.raises(StaleClaim):
        transitions.claim_step(tx, message, JobState.CANCELLING, LEASE)
    with db.connection() as tx:
        transitions.release(tx, db.claim_of(running), AT_ONCE)
    assert end(db) == [running]


def test_repeating_it_or_a_cancel_after_it_changes_nothing(db: JobsDatabase) -> None:
    job = db.uploading(1)
    abandon(db, job)
    before = db.row(job), db.events(job)
    assert abandon(db, job) == "cancelling"
    with db.connection() as tx:
        assert cancel_job(tx, job) == "cancelling"
    assert (db.row(job), db.events(job)) == before
    assert end(db) == [job]
    assert abandon(db, job) == "cancelled"


@pytest.mark.parametrize("what", ["slice", "finish", "init"])
def test_it_waits_for_the_claim(db: JobsDatabase, what: str) -> None:
    job = {"slice": db.uploading, "finish": db.finishing, "init": db.enqueue}[what]()
    (claim,) = db.take(job, *([0] if what == "slice" else []))
    abandon(db, job)
    age(db, job, 10_000)
    assert end(db, AT_ONCE_LEASES) == []
    with db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    assert end(db, AT_ONCE_LEASES) == [job]


@pytest.mark.parametrize(("what", "lease_s", "says"), [("finish", 200, "object"), ("init", 100, "upload")])
def test_a_request_that_may_outlast_its_claim_is_waited_for(
    db: JobsDatabase, what: str, lease_s: int, says: str
) -> None:
    """A finish, or a file in one request: the store may carry it out after the worker has left it."""
    job = {"finish": db.finishing, "init": db.enqueue}[what]()
    (claim,) = db.take(job)
    abandon(db, job)
    with db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    age(db, job, lease_s - 30)
    assert end(db) == []
    with db.connection() as tx:
        assert not transitions.promote_due(tx)
    age(db, job, 60)
    assert end(db) == [job]
    assert says in db.row(job)["result"]["session_left_open"]


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_slice_of_a_lost_worker_is_waited_for_until_its_lease_is_over(db: JobsDatabase, lost: str) -> None:
    job, worker = db.uploading(2), db.start_worker()
    db.take(job, 1, worker=worker)
    if lost == "after":
        abandon(db, job)
    db.end_worker(worker)
    with db.connection() as tx:
        assert len(transitions.rescue(tx)) == 1
    abandon(db, job)
    assert end(db) == []
    age(db, job, 101)
    assert end(db) == [job]


def test_a_finish_that_was_faster_stands(db: JobsDatabase) -> None:
    job = db.finishing()
    (claim,) = db.take(job)
    abandon(db, job)
    with db.connection() as tx:
        transitions.succeed(tx, claim, {"proof": "mark"})
    assert end(db, AT_ONCE_LEASES) == []
    assert db.row(job)["state"] == "succeeded"


def test_of_a_retried_job_nothing_is_left(db: JobsDatabase) -> None:
    job = db.uploading(1)
    abandon(db, job)
    end(db)
    with db.connection() as tx:
        assert retry_job(tx, job) == "queued"
    assert db.columns(job, "abandoned_at", "result", "session") == (None, None, None)


def test_a_retry_by_the_last_release_voids_it(db: JobsDatabase) -> None:
    """0.1 ends an abandoned job by an abort, and its retry does not know the column."""
    job = db.uploading(1)
    abandon(db, job)
    kept = db.row(job)["abandoned_at"]
    end(db)
    with db.connection() as tx:
        retry_job(tx, job)
    db.open(db.take(job)[0], 1)
    db.run("UPDATE job SET abandoned_at = %s, state = 'cancelling' WHERE id = %s", kept, job)
    age(db, job, 10_000)
    assert end(db, AT_ONCE_LEASES) == []


def test_an_abandoned_job_is_a_cancelled_one_to_a_leader_that_does_not_know_it(db: JobsDatabase) -> None:
    """A leader of 0.1 dispatches the abort: a worker may claim it and end the job, or the next leader does."""
    job = db.uploading(1)
    abandon(db, job)
    db.run("UPDATE job SET step = 'pending' WHERE id = %s", job)  # as 0.1 promotes it
    with db.connection() as tx:
        (message,) = transitions.dispatch(tx, [job], [])
        transitions.claim_step(tx, Claim(job, None, message.token, 1, db.worker), JobState.CANCELLING, LEASE)
        assert transitions.end_abandoned(tx, AT_ONCE_LEASES) == []
        transitions.cancelled(tx, db.claim_of(job), None)
    assert db.row(job)["state"] == "cancelled"


@pytest.mark.parametrize("first", ["end", "claim"])
def test_the_end_and_a_claim_of_the_abort_exclude_each_other(db: JobsDatabase, first: str) -> None:
    job = db.uploading(1)
    abandon(db, job)
    db.run("UPDATE job SET step = 'dispatched', token = 9 WHERE id = %s", job)  # by a leader of 0.1
    claim = db.claim_of(job)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        tx = stack.enter_context(db.transaction())
        if first == "claim":
            transitions.claim_step(tx, claim, JobState.CANCELLING, LEASE)
            assert end(db) == []  # it waits for no lock
            stack.close()
            assert end(db) == []
            return
        assert transitions.end_abandoned(tx, LONG) == [job]

        def try_to_claim() -> object:
            with db.connection() as other:
                return transitions.claim_step(other, claim, JobState.CANCELLING, LEASE)

        waiting = pool.submit(try_to_claim)
        wait_until_blocked(db)
        stack.close()
        with pytest.raises(StaleClaim):
            waiting.result(120)
    assert db.row(job)["state"] == "cancelled"


@pytest.mark.parametrize("first", ["abandon", "finish"])
def test_an_abandonment_and_the_claim_of_a_finish_are_one_after_the_other(db: JobsDatabase, first: str) -> None:
    job = db.finishing()
    db.dispatch(job)
    claim = db.claim_of(job)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        tx = stack.enter_context(db.transaction())

        def take(other: Any) -> object:
            return transitions.claim_step(other, claim, JobState.FINISHING, LEASE)

        def then() -> object:
            with db.connection() as other:
                return take(other) if first == "abandon" else abandon_job(other, job)

        if first == "abandon":
            abandon_job(tx, job)
        else:
            take(tx)
        waiting = pool.submit(then)
        wait_until_blocked(db)
        stack.close()
        if first == "abandon":
            with pytest.raises(StaleClaim):
                waiting.result(120)
            assert end(db) == [job]  # no finish was ever begun
        else:
            assert waiting.result(120) == "cancelling"
            assert end(db, AT_ONCE_LEASES) == []
