"""Checkpoint, release and reconcile of slices."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from tests.integration.jobs.database import AT_ONCE, ERROR, SOON, UNAVAILABLE, cancel_job, retry_job
from worker.jobs import transitions
from worker.jobs.leases import Deferral

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase


# --- checkpoint and release of slices ---


def test_the_last_checkpoint_moves_the_job_on(db: JobsDatabase) -> None:
    job = db.uploading(3)
    first, second, third = db.take(job, 0, 1, 2)
    recorded = db.checkpoint(first, second)
    assert {row.slices_left for row in recorded.values()} == {1}
    assert db.columns(job, "state", "bytes_done") == ("uploading", 20)
    (last,) = db.checkpoint(third).values()
    assert (last.state, last.slices_left) == ("finishing", 0)
    assert db.columns(job, "state", "step", "bytes_done") == ("finishing", "pending", 27)
    assert db.kinds(job).count("slices_done") == 1


def test_a_slice_that_comes_twice_in_one_batch_counts_once(db: JobsDatabase) -> None:
    job = db.uploading(3)
    (claim,) = db.take(job, 0)
    assert db.checkpoint(claim, claim)[job, 0, claim.token].slices_left == 2
    assert db.columns(job, "state", "bytes_done") == ("uploading", 10)


def test_the_event_of_the_last_checkpoint_names_its_worker(db: JobsDatabase) -> None:
    job = db.finishing(1)
    (done,) = (event for event in db.events(job) if event["kind"] == "slices_done")
    assert done["actor"] == f"worker {db.worker}"


def test_a_checkpoint_ends_the_time_in_failure(db: JobsDatabase) -> None:
    job = db.uploading(3)
    first, second = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.release(tx, first, SOON)
    assert db.columns(job, "error") == (UNAVAILABLE,)
    assert db.row(job)["failing_since"] is not None
    since = db.row(job)["failing_since"]
    db.checkpoint(second)
    assert db.columns(job, "error", "failing_since") == (None, None)
    recovered = db.events(job)[-1]
    assert (recovered["kind"], recovered["from_state"], recovered["to_state"]) == ("recovered", None, None)
    assert recovered["cause"]["code"] == "store_unavailable"
    assert datetime.fromisoformat(recovered["cause"]["failing_since"]) == since
    db.checkpoint(second)  # the same batch, sent again
    db.checkpoint(*db.take(job, 2))
    assert db.kinds(job).count("recovered") == 1


def test_a_wait_that_the_last_slices_end_is_in_the_history_before_the_move(db: JobsDatabase) -> None:
    job = db.uploading(2)
    first, second = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.release(tx, first, Deferral(None, UNAVAILABLE))
    db.checkpoint(second, *db.take(job, 0))
    assert db.kinds(job)[-3:] == ["slice_deferred", "recovered", "slices_done"]
    assert db.kinds(job).count("recovered") == 1


def test_a_deferred_slice_waits_counts_and_is_recorded_once_a_reason(db: JobsDatabase) -> None:
    job = db.uploading(3)
    for claim in db.take(job, 0, 1):
        with db.connection() as tx:
            transitions.release(tx, claim, SOON)
    first, second, _ = db.slices(job)
    for row in (first, second):
        assert (row["state"], row["attempts"], row["worker"], row["error"]) == ("pending", 1, None, UNAVAILABLE)
        assert row["not_before"] is not None
    assert db.kinds(job).count("slice_deferred") == 1
    since = db.row(job)["failing_since"]
    (claim,) = db.take(job, 2)
    with db.connection() as tx:
        transitions.release(tx, claim, Deferral(None, UNAVAILABLE, restart_clock=True))
    assert db.row(job)["failing_since"] > since


def test_an_interrupted_slice_leaves_no_trace(db: JobsDatabase) -> None:
    job = db.uploading(2)
    (claim,) = db.take(job, 0)
    with db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    row = db.slices(job)[0]
    assert (row["state"], row["attempts"], row["not_before"], row["error"]) == ("pending", 0, None, None)
    assert db.columns(job, "failing_since", "error") == (None, None)
    assert db.kinds(job)[-1] == "session_opened"


# --- reconcile ---


def test_slices_that_the_list_lacks_are_resent(db: JobsDatabase) -> None:
    job = db.finishing(3)
    (claim,) = db.take(job)
    with db.connection() as tx:
        row = transitions.reconcile(tx, claim, [0, 2])
    assert (row.state, row.slices_left, row.missing) == ("uploading", 1, 1)
    assert db.states(job) == ["done", "pending", "done"]
    assert db.columns(job, "step", "bytes_done", "slices_left") == ("idle", 17, 1)
    assert db.events(job)[-1]["kind"] == "slices_missing"
    db.checkpoint(*db.take(job, 1))
    assert db.columns(job, "state", "slices_left") == ("finishing", 0)


def test_a_list_with_every_slice_leads_to_finish_again(db: JobsDatabase) -> None:
    job = db.finishing(2)
    (claim,) = db.take(job)
    with db.connection() as tx:
        transitions.reconcile(tx, claim, [0, 1])
    assert db.columns(job, "state", "step") == ("finishing", "pending")
    assert db.kinds(job)[-1] == "finish_deferred"


def test_only_slices_claimed_in_this_session_count_in_a_list(db: JobsDatabase) -> None:
    """Slice 1 was being sent when its worker died; slice 2 never was: another client put it there."""
    job = db.uploading(4)
    done, lost = db.take(job, 0, 1)
    db.checkpoint(done)
    init = db.fail_and_retry(lost)
    with db.connection() as tx:
        transitions.reconcile(tx, init, [0, 1, 2])
    assert db.states(job) == ["done", "done", "pending", "pending"]
    assert db.columns(job, "state", "slices_left", "bytes_done") == ("uploading", 2, 20)
    assert db.kinds(job)[-1] == "session_opened"


def test_a_slice_that_is_still_being_sent_stays_with_its_worker(db: JobsDatabase) -> None:
    job = db.uploading(3)
    slow, failing = db.take(job, 0, 1)
    init = db.fail_and_retry(failing)
    with db.connection() as tx:
        transitions.reconcile(tx, init, [])
    assert db.states(job) == ["sending", "pending", "pending"]
    assert db.row(job)["slices_left"] == 3
    assert db.checkpoint(slow)[job, 0, slow.token].slices_left == 2


def test_a_checkpoint_between_retry_and_reconcile_is_counted_once(db: JobsDatabase) -> None:
    job = db.uploading(3)
    slow, failing = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
    db.checkpoint(slow)
    assert db.columns(job, "state", "slices_left", "bytes_done") == ("failed", 2, 10)
    with db.connection() as tx:
        retry_job(tx, job)
    (init,) = db.take(job)
    with db.connection() as tx:
        transitions.reconcile(tx, init, [0])
    assert db.columns(job, "state", "slices_left", "bytes_done") == ("uploading", 2, 10)


def test_a_cancelled_job_reconciles_nothing(db: JobsDatabase) -> None:
    job = db.finishing(2)
    (claim,) = db.take(job)
    with db.connection() as tx:
        cancel_job(tx, job)
        assert transitions.reconcile(tx, claim, []).state == "cancelling"
    assert db.columns(job, "state", "step", "slices_left") == ("cancelling", "idle", 0)
    assert db.states(job) == ["done", "done"]
