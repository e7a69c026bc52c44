"""How a job ends on request, or well."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import Conflict, NotFound, StaleClaim
from worker.jobs import transitions
from worker.jobs.ids import new_id
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState, Step

if TYPE_CHECKING:
    from tests.integration.jobs.bench import Bench


LEASE = timedelta(minutes=1)
ERROR = {"code": "store_refused", "message": "no", "advice": "look", "at": "2026-01-01T00:00:00+00:00"}
UNAVAILABLE = ERROR | {"code": "store_unavailable"}
SOON = Deferral(timedelta(minutes=5), UNAVAILABLE, attempt=True)
AT_ONCE = Deferral(None, None)


def at(bench: Bench, job: Any, *columns: str) -> tuple[Any, ...]:
    row = bench.row(job)
    return tuple(row[column] for column in columns)


# --- cancel ---


def test_a_job_that_never_began_is_cancelled_at_once(bench: Bench) -> None:
    job = bench.enqueue()
    bench.dispatch(job)
    claim = bench.claim_of(job)
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLED
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLED
    assert bench.kinds(job) == ["enqueued", "cancel_requested", "cancelled"]
    assert bench.row(job)["finished_at"] is not None


def test_the_abort_waits_until_the_last_slice_has_ended(bench: Bench) -> None:
    job = bench.uploading(3)
    sending, other = bench.take(job, 0, 1)
    bench.dispatch(job, 2)
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLING
        assert bench.states(job) == ["sending", "sending", "pending"]
        assert not transitions.promote_due(tx)
        bench.checkpoint(sending)
        assert not transitions.promote_due(tx)
        transitions.release(tx, other, AT_ONCE)
        assert transitions.promote_due(tx)
    (abort,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancelled(tx, abort, None)
    assert at(bench, job, "state", "step", "session", "result") == ("cancelled", "idle", None, None)
    assert bench.slices(job) == []


def test_the_abort_waits_for_the_step_that_was_running(bench: Bench) -> None:
    job = bench.finishing(1)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert not transitions.promote_due(tx)
        transitions.release(tx, finish, AT_ONCE)
        assert transitions.promote_due(tx)
    assert bench.row(job)["step"] == Step.PENDING


def test_a_session_that_was_left_open_is_told(bench: Bench) -> None:
    job = bench.uploading(1)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        transitions.promote_due(tx)
    (abort,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancelled(tx, abort, "an object is there")
    assert bench.row(job)["result"] == {"session_left_open": "an object is there"}
    assert bench.kinds(job)[-2:] == ["session_left_open", "cancelled"]
    assert bench.events(job)[-2]["cause"] == {"reason": "an object is there"}


def test_a_finish_that_was_faster_than_the_cancel_stands(bench: Bench) -> None:
    job = bench.finishing(2)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        transitions.succeed(tx, finish, {"proof": "mark"})
    assert at(bench, job, "state", "bytes_done") == ("succeeded", 17)
    assert bench.kinds(job)[-1] == "cancel_too_late"
    with bench.db.connection() as tx, pytest.raises(Conflict, match="already succeeded"):
        transitions.cancel(tx, job, "o")


def test_what_is_not_there_cannot_be_cancelled_or_retried(bench: Bench) -> None:
    for act in (transitions.cancel, transitions.retry):
        with bench.db.connection() as tx, pytest.raises(NotFound):
            act(tx, new_id(), "o")


# --- succeed ---


def test_success_folds_the_slices_into_a_summary(bench: Bench) -> None:
    job = bench.uploading(2)
    (first,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        transitions.release(tx, first, SOON)
        bench.run("UPDATE slice SET not_before = NULL")
    bench.checkpoint(*bench.take(job, 0, 1))
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.succeed(tx, finish, {"proof": "mark"})
    row = bench.row(job)
    assert row["result"]["slices"] == {"slices": 2, "sends": 3, "failed_attempts": 1, "deaths": 0}
    assert (row["session"], row["slices_left"], row["bytes_done"], row["error"]) == (None, 0, 17, None)
    assert bench.slices(job) == []


def test_a_job_without_slices_succeeds_with_an_empty_summary(bench: Bench) -> None:
    job = bench.enqueue()
    (init,) = bench.take(job)
    known = {"fingerprint": {"size": 5}, "size_bytes": 5, "hashing": None, "digests": None, "existed": None}
    with bench.db.connection() as tx:
        transitions.save_progress(tx, init, known, LEASE)
        transitions.succeed(tx, init, {"proof": "mark"})
    assert bench.row(job)["result"]["slices"] == {"slices": 0, "sends": 0, "failed_attempts": 0, "deaths": 0}
    assert bench.kinds(job)[-1] == "stored_at_once"
