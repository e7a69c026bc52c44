"""From the commit of a cancel on, no claim of its job is granted. Each test holds a lock at a critical point."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import ERROR, LEASE, abandon_job, cancel_job, wait_until_blocked
from worker.errors import StaleClaim
from worker.jobs import control, transitions
from worker.jobs.leases import Acknowledged, Claim, Deferral
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.database import JobsDatabase

HOLD_BACK: dict[str, Callable[..., object]] = {
    "cancel": cancel_job,
    "abandon": abandon_job,
    "pause": lambda tx, job: control.pause(tx, [job], "o", "why"),
    "quarantine": lambda tx, job: transitions.quarantine(tx, job, 1, ERROR),
}


def message_for(db: JobsDatabase, what: str) -> tuple[Any, Claim, Callable[[Any], object]]:
    """Return a job, the claim of a message for it, and the call that makes this claim."""
    if what == "slice":
        job = db.uploading(2)
        db.dispatch(job, 0)
        claim = db.claim_of(job, 0)
        return job, claim, lambda tx: transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
    job = db.enqueue()
    db.run("UPDATE job SET started_at = now()")  # the job began once, so a cancel has to clean up
    db.dispatch(job)
    claim = db.claim_of(job)
    return job, claim, lambda tx: transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)


@pytest.mark.parametrize("what", ["slice", "init"])
@pytest.mark.parametrize("how", HOLD_BACK)
def test_a_claim_that_waits_for_a_commit_that_holds_its_job_back_is_refused(
    db: JobsDatabase, how: str, what: str
) -> None:
    job, _, claim = message_for(db, what)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        tx = stack.enter_context(db.transaction())
        HOLD_BACK[how](tx, job)

        def try_to_claim() -> object:
            with db.connection() as other:
                return claim(other)

        waiting = pool.submit(try_to_claim)
        wait_until_blocked(db)
        stack.close()
        with pytest.raises(StaleClaim):
            waiting.result(120)
    assert "sending" not in db.states(job)
    assert db.row(job)["step"] != "running"


@pytest.mark.parametrize("what", ["slice", "init"])
def test_a_cancel_that_waited_sees_the_claim_that_was_first(db: JobsDatabase, what: str) -> None:
    job, claim, take = message_for(db, what)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        take(stack.enter_context(db.transaction()))

        def cancel() -> JobState:
            with db.connection() as other:
                return cancel_job(other, job)

        waiting = pool.submit(cancel)
        wait_until_blocked(db)
        stack.close()
        assert waiting.result(120) is JobState.CANCELLING
    with db.connection() as tx:
        assert not transitions.promote_due(tx)  # the claim has not ended
    held = db.row(job) if claim.number is None else db.slices(job)[0]
    assert held["worker"] == db.worker


def test_a_claim_goes_on_when_the_cancel_is_rolled_back(db: JobsDatabase) -> None:
    job, _, take = message_for(db, "slice")
    with ThreadPoolExecutor(1) as pool:
        with db.connection() as tx, tx.transaction(force_rollback=True):
            cancel_job(tx, job)

            def claim() -> object:
                with db.connection() as other:
                    return take(other)

            waiting = pool.submit(claim)
            wait_until_blocked(db)
        assert waiting.result(120)
    assert db.states(job)[0] == "sending"


def test_the_last_checkpoint_and_a_cancel_agree(db: JobsDatabase) -> None:
    """The checkpoint waits for the cancel, and does not move the job on."""
    job = db.uploading(1)
    (claim,) = db.take(job, 0)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        tx = stack.enter_context(db.transaction())
        HOLD_BACK["cancel"](tx, job)
        waiting = pool.submit(db.checkpoint, claim)
        wait_until_blocked(db)
        stack.close()
        (recorded,) = waiting.result(120).values()
    assert (recorded.state, recorded.slices_left) == ("cancelling", 0)
    assert db.row(job)["state"] == "cancelling"
    assert "slices_done" not in db.kinds(job)


def test_the_dispatcher_waits_for_no_lock(db: JobsDatabase) -> None:
    """Dispatch, redispatch and promotion skip locked rows."""
    job, other = db.uploading(2), db.enqueue()
    db.dispatch(job, 0)
    with db.transaction() as tx:
        cancel_job(tx, other)
        tx.execute("SELECT FROM job FOR UPDATE")
        tx.execute("SELECT FROM slice FOR UPDATE")
        with db.connection() as free:
            free.execute("SET lock_timeout = '5s'")
            assert transitions.dispatch(free, [other], [(job, 0), (job, 1)]) == []
            assert transitions.redispatch(free) == []
            assert not transitions.promote_due(free)
            free.execute("RESET lock_timeout")


@pytest.mark.parametrize("session_commit", ["on", "off"])
def test_only_the_claim_and_the_checkpoint_of_a_slice_commit_asynchronously(
    db: JobsDatabase, session_commit: str
) -> None:
    """`synchronous_commit` is off in their own transaction only, and not for the connection's next user."""
    job = db.uploading(2)
    db.dispatch(job, 0, 1)
    with db.connection() as tx:

        def setting() -> str:
            return str(tx.execute("SHOW synchronous_commit").fetchone()["synchronous_commit"])  # type: ignore[index]

        tx.execute(f"SET synchronous_commit = {session_commit}")
        for number in (0, 1):
            claim = db.claim_of(job, number)
            with tx.transaction():
                transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
                assert setting() == "off"
            assert setting() == session_commit
        transitions.release(tx, claim, Deferral(None, None))
        assert setting() == session_commit
        claim = db.claim_of(job, 0)
        with tx.transaction():
            transitions.checkpoint(tx, [Acknowledged(claim, None, None)], db.worker)
            assert setting() == "off"
        assert setting() == session_commit
        tx.execute("RESET synchronous_commit")


def test_every_other_move_commits_synchronously(db: JobsDatabase) -> None:
    with db.connection() as tx, tx.transaction():
        job = db.new()
        transitions.enqueue(tx, [job], "o")
        transitions.dispatch(tx, [job.id], [])
        transitions.claim_step(tx, Claim(job.id, None, 1, 1, db.worker), JobState.QUEUED, LEASE)
        transitions.rescue(tx)
        cancel_job(tx, job.id)
        assert tx.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "on"}
