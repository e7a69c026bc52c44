"""How a job is cancelled, and how it succeeds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.database import (
    AT_ONCE,
    ERROR,
    LEASE,
    SOON,
    UNAVAILABLE,
    cancel_job,
    retry_job,
    wait_until_blocked,
)
from worker.errors import Conflict, NotFound, StaleClaim
from worker.ids import new_id
from worker.jobs import transitions
from worker.jobs.leases import Deferral
from worker.jobs.rows import InitProgress
from worker.jobs.states import JobState, Step

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase


# --- cancel ---


def test_a_job_that_never_began_is_cancelled_at_once(db: JobsDatabase) -> None:
    job = db.enqueue()
    db.dispatch(job)
    claim = db.claim_of(job)
    with db.connection() as tx:
        assert cancel_job(tx, job) is JobState.CANCELLED
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
        assert cancel_job(tx, job) is JobState.CANCELLED
    assert db.kinds(job) == ["enqueued", "cancel_requested", "cancelled"]
    assert db.row(job)["finished_at"] is not None


UNTOUCHED = ("root_unavailable", "store_unusable", "store_changed", "tenant_not_allowed")


def deferred(db: JobsDatabase, *codes: str | None) -> UUID:
    """Return a job whose inits ended with these errors in turn; None: the worker interrupted the init."""
    job = db.enqueue()
    for code in codes:
        (init,) = db.take(job)
        with db.connection() as tx:
            transitions.release(tx, init, AT_ONCE if code is None else Deferral(None, ERROR | {"code": code}))
    return job


@pytest.mark.parametrize("codes", [*[(code,) for code in UNTOUCHED], UNTOUCHED])
def test_a_job_that_began_nothing_at_the_store_is_cancelled_at_once(db: JobsDatabase, codes: tuple[str, ...]) -> None:
    job = deferred(db, *codes)
    with db.connection() as tx:
        assert cancel_job(tx, job) is JobState.CANCELLED
    assert db.kinds(job)[-2:] == ["cancel_requested", "cancelled"]
    assert db.columns(job, "step", "error", "result", "finished_at")[:3] == ("idle", None, None)


@pytest.mark.parametrize("code", ["store_unavailable", "store_unknown", "store_throttled", "slice_stalled", None])
def test_a_job_that_may_have_begun_something_needs_an_abort(db: JobsDatabase, code: str | None) -> None:
    job = deferred(db, "root_unavailable", code, "store_unusable")
    with db.connection() as tx:
        assert cancel_job(tx, job) is JobState.CANCELLING


@pytest.mark.parametrize("how", ["killed", "running", "with a session"])
def test_a_job_that_was_at_work_needs_an_abort(db: JobsDatabase, how: str) -> None:
    job = db.uploading() if how == "with a session" else deferred(db, "store_unusable")
    if how != "with a session":
        worker = db.start_worker()
        db.take(job, worker=worker)
        if how == "killed":
            db.end_worker(worker)
            with db.connection() as tx:
                transitions.rescue(tx)
    with db.connection() as tx:
        assert cancel_job(tx, job) is JobState.CANCELLING


def test_an_init_that_comes_and_goes_while_a_cancel_waits_for_the_row_is_counted(db: JobsDatabase) -> None:
    job = deferred(db, "store_unusable")
    db.dispatch(job)
    init = db.claim_of(job)

    def cancel() -> JobState:
        with db.connection() as tx:
            return cancel_job(tx, job)

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            transitions.claim_step(tx, init, JobState.QUEUED, LEASE)
            cancelled = pool.submit(cancel)
            wait_until_blocked(db)
            transitions.release(tx, init, Deferral(None, UNAVAILABLE))
        assert cancelled.result(30) is JobState.CANCELLING


def test_the_abort_waits_until_the_last_slice_has_ended(db: JobsDatabase) -> None:
    job = db.uploading(3)
    sending, other = db.take(job, 0, 1)
    db.dispatch(job, 2)
    with db.connection() as tx:
        assert cancel_job(tx, job) is JobState.CANCELLING
        assert db.states(job) == ["sending", "sending", "pending"]
        assert not transitions.promote_due(tx)
        db.checkpoint(sending)
        assert not transitions.promote_due(tx)
        transitions.release(tx, other, AT_ONCE)
        assert transitions.promote_due(tx)
    (abort,) = db.take(job)
    with db.connection() as tx:
        transitions.cancelled(tx, abort, None)
    assert db.columns(job, "state", "step", "session", "result") == ("cancelled", "idle", None, None)
    assert db.slices(job) == []


def test_the_abort_waits_for_the_step_that_was_running(db: JobsDatabase) -> None:
    job = db.finishing(1)
    (finish,) = db.take(job)
    with db.connection() as tx:
        cancel_job(tx, job)
        assert not transitions.promote_due(tx)
        transitions.release(tx, finish, AT_ONCE)
        assert transitions.promote_due(tx)
    assert db.row(job)["step"] == Step.PENDING


def test_a_session_that_was_left_open_is_reported(db: JobsDatabase) -> None:
    job = db.uploading(1)
    with db.connection() as tx:
        cancel_job(tx, job)
        transitions.promote_due(tx)
    (abort,) = db.take(job)
    with db.connection() as tx:
        transitions.cancelled(tx, abort, "an object is there")
    assert db.row(job)["result"] == {"session_left_open": "an object is there"}
    assert db.kinds(job)[-2:] == ["session_left_open", "cancelled"]
    target = db.row(job)["target"]
    assert db.events(job)[-2]["cause"] == {
        "reason": "an object is there",
        "session": {"handle": "s-1"},  # an operator who aborts it by hand finds it in no other place
        "target": target,
    }


def test_a_finish_that_was_faster_than_the_cancel_stands(db: JobsDatabase) -> None:
    job = db.finishing(2)
    (finish,) = db.take(job)
    with db.connection() as tx:
        cancel_job(tx, job)
        transitions.succeed(tx, finish, {"proof": "mark"})
    assert db.columns(job, "state", "bytes_done") == ("succeeded", 17)
    assert db.kinds(job)[-1] == "cancel_too_late"
    with db.connection() as tx, pytest.raises(Conflict, match="already succeeded"):
        cancel_job(tx, job)


def test_a_job_that_does_not_exist_cannot_be_cancelled_or_retried(db: JobsDatabase) -> None:
    for move in (cancel_job, retry_job):
        with db.connection() as tx, pytest.raises(NotFound):
            move(tx, new_id(), "o")


# --- succeed ---


def test_success_folds_the_slices_into_a_summary(db: JobsDatabase) -> None:
    job = db.uploading(2)
    (first,) = db.take(job, 0)
    with db.connection() as tx:
        transitions.release(tx, first, SOON)
        db.run("UPDATE slice SET not_before = NULL")
    db.checkpoint(*db.take(job, 0, 1))
    (finish,) = db.take(job)
    with db.connection() as tx:
        transitions.succeed(tx, finish, {"proof": "mark"})
    row = db.row(job)
    assert row["result"]["slices"] == {"slices": 2, "sends": 3, "failed_attempts": 1, "deaths": 0}
    assert (row["session"], row["slices_left"], row["bytes_done"], row["error"]) == (None, 0, 17, None)
    assert db.slices(job) == []


def test_a_job_without_slices_succeeds_with_an_empty_summary(db: JobsDatabase) -> None:
    job = db.enqueue()
    (init,) = db.take(job)
    known = InitProgress({"size": 5}, 5)
    with db.connection() as tx:
        transitions.save_progress(tx, init, known, LEASE)
        transitions.succeed(tx, init, {"proof": "mark"})
    assert db.row(job)["result"]["slices"] == {"slices": 0, "sends": 0, "failed_attempts": 0, "deaths": 0}
    assert db.kinds(job)[-1] == "stored_at_once"
