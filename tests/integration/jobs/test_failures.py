"""How an epoch or a job ends, and what becomes of its other claims."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.database import AT_ONCE, ERROR, LEASE, UNAVAILABLE, cancel_job
from worker.errors import StaleClaim
from worker.jobs import transitions
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase


# --- new epoch ---


def test_a_lost_session_voids_everything_of_its_epoch(db: JobsDatabase) -> None:
    job = db.uploading(3)
    done, loser, late = db.take(job, 0, 1, 2)
    db.checkpoint(done)
    with db.connection() as tx:
        assert transitions.new_epoch(tx, loser, ERROR, None) is JobState.QUEUED
    assert db.columns(job, "state", "step", "epoch", "session", "bytes_done") == ("queued", "pending", 2, None, 0)
    assert db.columns(job, "session_losses", "slices_total", "slices_left") == (1, None, None)
    assert db.slices(job) == []
    assert db.checkpoint(late) == {}
    with db.connection() as tx, pytest.raises(StaleClaim):
        transitions.new_epoch(tx, late, ERROR, None)
    assert db.row(job)["session_losses"] == 1


def test_tokens_of_a_new_epoch_are_greater_than_any_before(db: JobsDatabase) -> None:
    job = db.uploading(2)
    first, late = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.new_epoch(tx, first, ERROR, None)
    (init,) = db.take(job)
    db.open(init, 2)
    assert min(row["token"] for row in db.slices(job)) > late.token
    db.take(job, 1)
    assert db.checkpoint(late) == {}


@pytest.mark.parametrize(("wait", "waits"), [(None, False), (timedelta(seconds=30), True)])
def test_a_lost_session_at_finish_waits_as_decided(db: JobsDatabase, wait: timedelta | None, *, waits: bool) -> None:
    job = db.finishing(1)
    (claim,) = db.take(job)
    with db.connection() as tx:
        transitions.new_epoch(tx, claim, ERROR, wait)
    assert db.columns(job, "state", "step", "epoch") == ("queued", "pending", 2)
    assert (db.row(job)["not_before"] is not None) is waits


def test_a_session_lost_under_a_cancel_starts_nothing_afresh(db: JobsDatabase) -> None:
    job = db.uploading(2)
    loser, other = db.take(job, 0, 1)
    with db.connection() as tx:
        cancel_job(tx, job)
        assert transitions.new_epoch(tx, loser, ERROR, None) is JobState.CANCELLING
    assert db.columns(job, "state", "epoch", "session") == ("cancelling", 1, {"handle": "s-1"})
    assert db.states(job) == ["pending", "sending"]
    assert db.checkpoint(other).keys() == {(job, 1, other.token)}


def test_a_session_lost_by_an_old_slice_leaves_a_cancelled_step_with_its_holder(db: JobsDatabase) -> None:
    """The init that runs during the cancel may still report a session."""
    job = db.uploading(2)
    failing, slow = db.take(job, 0, 1)
    init = db.fail_and_retry(failing)
    with db.connection() as tx:
        cancel_job(tx, job)
        transitions.new_epoch(tx, slow, ERROR, LEASE)
        assert db.columns(job, "step", "worker") == ("running", db.worker)
        assert db.row(job)["lease_until"] is not None
        transitions.release(tx, init, AT_ONCE)
    assert db.columns(job, "state", "step") == ("cancelling", "idle")


# --- fail ---


def test_a_slice_that_fails_for_good_fails_the_job_and_others_may_still_end(db: JobsDatabase) -> None:
    job = db.uploading(4)
    failing, other = db.take(job, 0, 1)
    db.dispatch(job, 2)
    with db.connection() as tx:
        assert transitions.fail(tx, failing, ERROR) is JobState.FAILED
    assert db.states(job) == ["pending", "sending", "pending", "pending"]
    row = db.row(job)
    assert (row["error"]["code"], row["step"]) == ("store_refused", "idle")
    assert row["finished_at"] is not None
    db.checkpoint(other)
    assert db.columns(job, "state", "slices_left") == ("failed", 3)
    assert db.row(job)["error"]["code"] == "store_refused"


def test_a_second_slice_that_fails_is_given_back_too(db: JobsDatabase) -> None:
    job = db.uploading(2)
    first, second = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.fail(tx, first, ERROR)
        assert transitions.fail(tx, second, UNAVAILABLE) is JobState.FAILED
    assert db.states(job) == ["pending", "pending"]
    assert db.row(job)["error"]["code"] == "store_refused"
    assert db.kinds(job).count("failed") == 1


def test_a_slice_of_the_old_run_that_fails_takes_the_init_of_the_new_run_along(db: JobsDatabase) -> None:
    """The job has failed: the holder of its init can neither revive it nor make its step due."""
    job = db.uploading(2)
    failing, slow = db.take(job, 0, 1)
    init = db.fail_and_retry(failing)
    with db.connection() as tx:
        assert transitions.fail(tx, slow, ERROR) is JobState.FAILED
        for late in (
            lambda: transitions.reconcile(tx, init, [0, 1]),
            lambda: transitions.release(tx, init, AT_ONCE),
            lambda: transitions.succeed(tx, init, {}),
        ):
            with pytest.raises(StaleClaim):
                late()
    assert db.columns(job, "state", "step", "worker") == ("failed", "idle", None)


def test_a_step_that_fails_under_a_cancel_makes_way_for_the_abort_at_once(db: JobsDatabase) -> None:
    job = db.finishing(1)
    (finish,) = db.take(job)
    with db.connection() as tx:
        cancel_job(tx, job)
        assert transitions.fail(tx, finish, ERROR) is JobState.CANCELLING
        assert transitions.promote_due(tx)
    assert db.columns(job, "state", "step", "not_before") == ("cancelling", "pending", None)


def test_an_abort_that_is_refused_waits_and_keeps_since_when(db: JobsDatabase) -> None:
    job = db.uploading(1)
    with db.connection() as tx:
        cancel_job(tx, job)
        for round_ in range(2):
            assert transitions.promote_due(tx)
            if round_:
                db.run("UPDATE job SET not_before = NULL WHERE id = %s", job)
            (abort,) = db.take(job)
            assert transitions.fail(tx, abort, ERROR) is JobState.CANCELLING
            if not round_:
                since = db.row(job)["failing_since"]
                assert since is not None
    assert db.row(job)["not_before"] is not None
    assert db.row(job)["failing_since"] == since
