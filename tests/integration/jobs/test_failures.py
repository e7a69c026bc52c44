"""What ends an epoch or a job, and whom it takes along."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import StaleClaim
from worker.jobs import transitions
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState

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


# --- new epoch ---


def test_a_lost_session_voids_everything_of_its_epoch(bench: Bench) -> None:
    job = bench.uploading(3)
    done, loser, late = bench.take(job, 0, 1, 2)
    bench.checkpoint(done)
    with bench.db.connection() as tx:
        assert transitions.new_epoch(tx, loser, ERROR, None) is JobState.QUEUED
    assert at(bench, job, "state", "step", "epoch", "session", "bytes_done") == ("queued", "pending", 2, None, 0)
    assert at(bench, job, "session_losses", "slices_total", "slices_left") == (1, None, None)
    assert bench.slices(job) == []
    assert bench.checkpoint(late) == {}
    with bench.db.connection() as tx, pytest.raises(StaleClaim):
        transitions.new_epoch(tx, late, ERROR, None)
    assert bench.row(job)["session_losses"] == 1


def test_tokens_of_a_new_epoch_are_greater_than_any_before(bench: Bench) -> None:
    job = bench.uploading(2)
    first, late = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.new_epoch(tx, first, ERROR, None)
    (init,) = bench.take(job)
    bench.open(init, 2)
    assert min(row["token"] for row in bench.slices(job)) > late.token
    bench.take(job, 1)
    assert bench.checkpoint(late) == {}


@pytest.mark.parametrize(("wait", "waits"), [(None, False), (timedelta(seconds=30), True)])
def test_a_lost_session_at_finish_waits_as_decided(bench: Bench, wait: timedelta | None, *, waits: bool) -> None:
    job = bench.finishing(1)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.new_epoch(tx, claim, ERROR, wait)
    assert at(bench, job, "state", "step", "epoch") == ("queued", "pending", 2)
    assert (bench.row(job)["not_before"] is not None) is waits


def test_a_session_lost_under_a_cancel_starts_nothing_afresh(bench: Bench) -> None:
    job = bench.uploading(2)
    loser, other = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.new_epoch(tx, loser, ERROR, None) is JobState.CANCELLING
    assert at(bench, job, "state", "epoch", "session") == ("cancelling", 1, {"handle": "s-1"})
    assert bench.states(job) == ["pending", "sending"]
    assert bench.checkpoint(other).keys() == {(job, 1, other.token)}


def test_a_session_lost_by_an_old_slice_leaves_a_cancelled_step_with_its_holder(bench: Bench) -> None:
    """The init that was running when the job was cancelled has yet to tell of its session."""
    job = bench.uploading(2)
    failing, slow = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        transitions.retry(tx, job, "o")
    (init,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        transitions.new_epoch(tx, slow, ERROR, LEASE)
        assert at(bench, job, "step", "worker") == ("running", bench.worker)
        assert bench.row(job)["lease_until"] is not None
        transitions.release(tx, init, AT_ONCE)
    assert at(bench, job, "state", "step") == ("cancelling", "idle")


# --- fail ---


def test_a_slice_that_fails_for_good_fails_the_job_and_others_may_still_end(bench: Bench) -> None:
    job = bench.uploading(4)
    failing, other = bench.take(job, 0, 1)
    bench.dispatch(job, 2)
    with bench.db.connection() as tx:
        assert transitions.fail(tx, failing, ERROR) is JobState.FAILED
    assert bench.states(job) == ["pending", "sending", "pending", "pending"]
    row = bench.row(job)
    assert (row["error"]["code"], row["step"]) == ("store_refused", "idle")
    assert row["finished_at"] is not None
    bench.checkpoint(other)
    assert at(bench, job, "state", "slices_left") == ("failed", 3)
    assert bench.row(job)["error"]["code"] == "store_refused"


def test_a_second_slice_that_fails_is_given_back_too(bench: Bench) -> None:
    job = bench.uploading(2)
    first, second = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, first, ERROR)
        assert transitions.fail(tx, second, UNAVAILABLE) is JobState.FAILED
    assert bench.states(job) == ["pending", "pending"]
    assert bench.row(job)["error"]["code"] == "store_refused"
    assert bench.kinds(job).count("failed") == 1


def test_a_slice_of_the_old_run_that_fails_takes_the_init_of_the_new_run_along(bench: Bench) -> None:
    """The job has failed; whoever holds its init must not bring it back, nor hand its step out again."""
    job = bench.uploading(2)
    failing, slow = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        transitions.retry(tx, job, "o")
    (init,) = bench.take(job)
    with bench.db.connection() as tx:
        assert transitions.fail(tx, slow, ERROR) is JobState.FAILED
        for late in (
            lambda: transitions.reconcile(tx, init, [0, 1]),
            lambda: transitions.release(tx, init, AT_ONCE),
            lambda: transitions.succeed(tx, init, {}),
        ):
            with pytest.raises(StaleClaim):
                late()
    assert at(bench, job, "state", "step", "worker") == ("failed", "idle", None)


def test_a_step_that_fails_under_a_cancel_makes_way_for_the_abort_at_once(bench: Bench) -> None:
    job = bench.finishing(1)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.fail(tx, finish, ERROR) is JobState.CANCELLING
        assert transitions.promote_due(tx)
    assert at(bench, job, "state", "step", "not_before") == ("cancelling", "pending", None)


def test_an_abort_that_is_refused_takes_its_time_and_remembers_since_when(bench: Bench) -> None:
    job = bench.uploading(1)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        for round_ in range(2):
            assert transitions.promote_due(tx)
            if round_:
                bench.run("UPDATE job SET not_before = NULL WHERE id = %s", job)
            (abort,) = bench.take(job)
            assert transitions.fail(tx, abort, ERROR) is JobState.CANCELLING
            if not round_:
                since = bench.row(job)["failing_since"]
                assert since is not None
    assert bench.row(job)["not_before"] is not None
    assert bench.row(job)["failing_since"] == since
