"""How a job ends on request, or well."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.bench import open_transaction, wait_until_blocked
from worker.errors import Conflict, NotFound, StaleClaim
from worker.ids import new_id
from worker.jobs import transitions
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState, Step

if TYPE_CHECKING:
    from uuid import UUID

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


UNTOUCHED = ("root_unavailable", "store_unusable", "store_changed", "tenant_not_allowed")


def deferred(bench: Bench, *codes: str | None) -> UUID:
    """A job whose inits have ended by these errors, one after the other; None: we cut it short ourselves."""
    job = bench.enqueue()
    for code in codes:
        (init,) = bench.take(job)
        with bench.db.connection() as tx:
            transitions.release(tx, init, AT_ONCE if code is None else Deferral(None, ERROR | {"code": code}))
    return job


@pytest.mark.parametrize("codes", [*[(code,) for code in UNTOUCHED], UNTOUCHED])
def test_a_job_that_began_nothing_at_the_store_is_cancelled_at_once(bench: Bench, codes: tuple[str, ...]) -> None:
    job = deferred(bench, *codes)
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLED
    assert bench.kinds(job)[-2:] == ["cancel_requested", "cancelled"]
    assert at(bench, job, "step", "error", "result", "finished_at")[:3] == ("idle", None, None)


@pytest.mark.parametrize("code", ["store_unavailable", "store_unknown", "store_throttled", "slice_stalled", None])
def test_a_job_that_may_have_begun_something_is_looked_after(bench: Bench, code: str | None) -> None:
    job = deferred(bench, "root_unavailable", code, "store_unusable")
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLING


@pytest.mark.parametrize("how", ["killed", "running", "with a session"])
def test_a_job_that_was_at_work_is_looked_after(bench: Bench, how: str) -> None:
    job = bench.uploading() if how == "with a session" else deferred(bench, "store_unusable")
    if how != "with a session":
        worker = bench.start_worker()
        bench.take(job, worker=worker)
        if how == "killed":
            bench.end_worker(worker)
            with bench.db.connection() as tx:
                transitions.rescue(tx)
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLING


def test_an_init_that_comes_and_goes_while_a_cancel_waits_for_the_row_is_not_overlooked(bench: Bench) -> None:
    job = deferred(bench, "store_unusable")
    bench.dispatch(job)
    init = bench.claim_of(job)

    def cancel() -> JobState:
        with bench.db.connection() as tx:
            return transitions.cancel(tx, job, "o")

    with ThreadPoolExecutor(1) as pool:
        with open_transaction(bench) as tx:
            transitions.claim_step(tx, init, JobState.QUEUED, LEASE)
            cancelled = pool.submit(cancel)
            wait_until_blocked(bench)
            transitions.release(tx, init, Deferral(None, UNAVAILABLE))
        assert cancelled.result(30) is JobState.CANCELLING


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
    target = bench.row(job)["target"]
    assert bench.events(job)[-2]["cause"] == {
        "reason": "an object is there",
        "session": {"handle": "s-1"},  # whoever cleans up by hand finds it nowhere else
        "target": target,
    }


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
