"""Each move in each of its branches: what a job looks like after it, and what became of its slices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from worker.errors import Conflict, NotFound, StaleClaim
from worker.jobs import transitions
from worker.jobs.ids import new_id
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState, Step

LEASE = timedelta(minutes=1)
ERROR = {"code": "store_refused", "message": "no", "advice": "look", "at": "2026-01-01T00:00:00+00:00"}
UNAVAILABLE = ERROR | {"code": "store_unavailable"}
SOON = Deferral(timedelta(minutes=5), UNAVAILABLE, attempt=True)
AT_ONCE = Deferral(None, None)


def at(bench: Any, job: Any, *columns: str) -> tuple[Any, ...]:
    row = bench.row(job)
    return tuple(row[column] for column in columns)


# --- init ---


def test_a_claim_of_init_starts_the_job_once(bench: Any) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    assert at(bench, job, "state", "step", "worker") == ("initializing", "running", bench.worker)
    started = bench.row(job)["started_at"]
    with bench.db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    bench.take(job)
    assert bench.row(job)["started_at"] == started
    assert bench.kinds(job) == ["enqueued", "init_claimed", "init_deferred", "init_claimed"]


def test_init_stores_what_it_knows_and_extends_its_lease(bench: Any) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    before = bench.row(job)["lease_until"]
    known = {"fingerprint": {"size": 5}, "size_bytes": 5, "hashing": {"offset_bytes": 2}, "digests": {"value": "d"}}
    with bench.db.connection() as tx:
        transitions.save_progress(tx, claim, known | {"existed": True}, timedelta(hours=1))
        transitions.save_progress(tx, claim, known | {"hashing": None, "existed": None}, timedelta(hours=1))
    assert at(bench, job, "fingerprint", "hashing", "existed") == ({"size": 5}, None, True)
    assert bench.row(job)["lease_until"] - before > timedelta(minutes=50)


def test_a_session_brings_a_row_a_slice_that_cover_the_file(bench: Any) -> None:
    job = bench.uploading(4, held=[1])
    assert [(s["offset_bytes"], s["size_bytes"]) for s in bench.slices(job)] == [(0, 10), (10, 10), (20, 10), (30, 7)]
    assert bench.states(job) == ["pending", "done", "pending", "pending"]
    assert at(bench, job, "state", "step", "slices_left", "bytes_done") == ("uploading", "idle", 3, 10)
    assert bench.kinds(job)[-1] == "session_opened"


def test_a_session_whose_store_has_every_slice_goes_straight_to_finishing(bench: Any) -> None:
    job = bench.uploading(2, held=[0, 1])
    assert at(bench, job, "state", "step", "slices_left", "bytes_done") == ("finishing", "pending", 0, 17)
    assert bench.kinds(job)[-1] == "all_slices_held"


def test_an_empty_plan_goes_straight_to_finishing(bench: Any) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    bench.run("UPDATE job SET size_bytes = 0 WHERE id = %s", job)
    plan = {"slice_bytes": 10, "ordered": False, "total": 0, "held": [], "bytes_done": 0}
    with bench.db.connection() as tx:
        assert transitions.open_session(tx, claim, {"h": 1}, plan, {}) is JobState.FINISHING
    assert bench.slices(job) == []


def test_a_session_that_came_after_a_cancel_is_remembered_for_the_abort(bench: Any) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLING
    assert bench.open(claim, 3) is JobState.CANCELLING
    assert at(bench, job, "state", "step", "session") == ("cancelling", "idle", {"handle": "s-1"})
    assert bench.slices(job) == []
    assert bench.kinds(job)[-1] == "cancel_requested"


# --- checkpoint and release of slices ---


def test_the_last_checkpoint_moves_the_job_on(bench: Any) -> None:
    job = bench.uploading(3)
    first, second, third = bench.take(job, 0, 1, 2)
    answers = bench.checkpoint(first, second)
    assert {row["slices_left"] for row in answers.values()} == {1}
    assert at(bench, job, "state", "bytes_done") == ("uploading", 20)
    (last,) = bench.checkpoint(third).values()
    assert (last["state"], last["slices_left"]) == ("finishing", 0)
    assert at(bench, job, "state", "step", "bytes_done") == ("finishing", "pending", 27)
    assert bench.kinds(job).count("slices_done") == 1


def test_a_checkpoint_ends_the_time_in_failure(bench: Any) -> None:
    job = bench.uploading(3)
    first, second = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.release(tx, first, SOON)
    assert at(bench, job, "error") == (UNAVAILABLE,)
    assert bench.row(job)["failing_since"] is not None
    bench.checkpoint(second)
    assert at(bench, job, "error", "failing_since") == (None, None)


def test_a_slice_put_off_waits_counts_and_is_told_once_a_reason(bench: Any) -> None:
    job = bench.uploading(3)
    for claim in bench.take(job, 0, 1):
        with bench.db.connection() as tx:
            transitions.release(tx, claim, SOON)
    first, second, _ = bench.slices(job)
    for row in (first, second):
        assert (row["state"], row["attempts"], row["worker"], row["error"]) == ("pending", 1, None, UNAVAILABLE)
        assert row["not_before"] is not None
    assert bench.kinds(job).count("slice_deferred") == 1
    since = bench.row(job)["failing_since"]
    (claim,) = bench.take(job, 2)
    with bench.db.connection() as tx:
        transitions.release(tx, claim, Deferral(None, UNAVAILABLE, restart_clock=True))
    assert bench.row(job)["failing_since"] > since


def test_an_interrupted_slice_leaves_no_trace(bench: Any) -> None:
    job = bench.uploading(2)
    (claim,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    row = bench.slices(job)[0]
    assert (row["state"], row["attempts"], row["not_before"], row["error"]) == ("pending", 0, None, None)
    assert at(bench, job, "failing_since", "error") == (None, None)
    assert bench.kinds(job)[-1] == "session_opened"


# --- reconcile ---


def test_slices_that_the_list_lacks_are_sent_again(bench: Any) -> None:
    job = bench.finishing(3)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        answer = transitions.reconcile(tx, claim, [0, 2])
    assert (answer["state"], answer["slices_left"], answer["missing"]) == ("uploading", 1, 1)
    assert bench.states(job) == ["done", "pending", "done"]
    assert at(bench, job, "step", "bytes_done", "slices_left") == ("idle", 17, 1)
    assert bench.events(job)[-1]["kind"] == "slices_missing"
    bench.checkpoint(*bench.take(job, 1))
    assert at(bench, job, "state", "slices_left") == ("finishing", 0)


def test_a_list_with_every_slice_leads_to_finish_again(bench: Any) -> None:
    job = bench.finishing(2)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.reconcile(tx, claim, [0, 1])
    assert at(bench, job, "state", "step") == ("finishing", "pending")
    assert bench.kinds(job)[-1] == "finish_deferred"


def test_only_what_was_claimed_in_this_session_is_believed_of_a_list(bench: Any) -> None:
    """Slice 1 was being sent when its worker died; slice 2 never was: somebody else put it there."""
    job = bench.uploading(4)
    done, lost = bench.take(job, 0, 1)
    bench.checkpoint(done)
    with bench.db.connection() as tx:
        transitions.fail(tx, lost, ERROR)
        transitions.retry(tx, job, "o")
    (init,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.reconcile(tx, init, [0, 1, 2])
    assert bench.states(job) == ["done", "done", "pending", "pending"]
    assert at(bench, job, "state", "slices_left", "bytes_done") == ("uploading", 2, 20)
    assert bench.kinds(job)[-1] == "session_opened"


def test_a_slice_that_is_still_being_sent_stays_with_its_worker(bench: Any) -> None:
    job = bench.uploading(3)
    slow, failing = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        transitions.retry(tx, job, "o")
    (init,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.reconcile(tx, init, [])
    assert bench.states(job) == ["sending", "pending", "pending"]
    assert bench.row(job)["slices_left"] == 3
    assert bench.checkpoint(slow)[job, 0, slow.token]["slices_left"] == 2


def test_a_checkpoint_between_retry_and_reconcile_is_counted_once(bench: Any) -> None:
    job = bench.uploading(3)
    slow, failing = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
    bench.checkpoint(slow)
    assert at(bench, job, "state", "slices_left", "bytes_done") == ("failed", 2, 10)
    with bench.db.connection() as tx:
        transitions.retry(tx, job, "o")
    (init,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.reconcile(tx, init, [0])
    assert at(bench, job, "state", "slices_left", "bytes_done") == ("uploading", 2, 10)


def test_a_cancelled_job_reconciles_nothing(bench: Any) -> None:
    job = bench.finishing(2)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.reconcile(tx, claim, [])["state"] == "cancelling"
    assert at(bench, job, "state", "step", "slices_left") == ("cancelling", "idle", 0)
    assert bench.states(job) == ["done", "done"]


# --- new epoch ---


def test_a_lost_session_voids_everything_of_its_epoch(bench: Any) -> None:
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


def test_tokens_of_a_new_epoch_are_greater_than_any_before(bench: Any) -> None:
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
def test_a_lost_session_at_finish_waits_as_decided(bench: Any, wait: timedelta | None, *, waits: bool) -> None:
    job = bench.finishing(1)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.new_epoch(tx, claim, ERROR, wait)
    assert at(bench, job, "state", "step", "epoch") == ("queued", "pending", 2)
    assert (bench.row(job)["not_before"] is not None) is waits


def test_a_session_lost_under_a_cancel_starts_nothing_afresh(bench: Any) -> None:
    job = bench.uploading(2)
    loser, other = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.new_epoch(tx, loser, ERROR, None) is JobState.CANCELLING
    assert at(bench, job, "state", "epoch", "session") == ("cancelling", 1, {"handle": "s-1"})
    assert bench.states(job) == ["pending", "sending"]
    assert bench.checkpoint(other).keys() == {(job, 1, other.token)}


# --- fail ---


def test_a_slice_that_fails_for_good_fails_the_job_and_others_may_still_end(bench: Any) -> None:
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


def test_a_second_slice_that_fails_is_given_back_too(bench: Any) -> None:
    job = bench.uploading(2)
    first, second = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, first, ERROR)
        assert transitions.fail(tx, second, UNAVAILABLE) is JobState.FAILED
    assert bench.states(job) == ["pending", "pending"]
    assert bench.row(job)["error"]["code"] == "store_refused"
    assert bench.kinds(job).count("failed") == 1


def test_a_slice_of_the_old_run_that_fails_takes_the_init_of_the_new_run_along(bench: Any) -> None:
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


def test_a_step_that_fails_under_a_cancel_makes_way_for_the_abort_at_once(bench: Any) -> None:
    job = bench.finishing(1)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.fail(tx, finish, ERROR) is JobState.CANCELLING
        assert transitions.promote_due(tx)
    assert at(bench, job, "state", "step", "not_before") == ("cancelling", "pending", None)


def test_an_abort_that_is_refused_takes_its_time_and_remembers_since_when(bench: Any) -> None:
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


# --- cancel ---


def test_a_job_that_never_began_is_cancelled_at_once(bench: Any) -> None:
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


def test_the_abort_waits_until_the_last_slice_has_ended(bench: Any) -> None:
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


def test_the_abort_waits_for_the_step_that_was_running(bench: Any) -> None:
    job = bench.finishing(1)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert not transitions.promote_due(tx)
        transitions.release(tx, finish, AT_ONCE)
        assert transitions.promote_due(tx)
    assert bench.row(job)["step"] == Step.PENDING


def test_a_session_that_was_left_open_is_told(bench: Any) -> None:
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


def test_a_finish_that_was_faster_than_the_cancel_stands(bench: Any) -> None:
    job = bench.finishing(2)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        transitions.succeed(tx, finish, {"proof": "mark"})
    assert at(bench, job, "state", "bytes_done") == ("succeeded", 17)
    assert bench.kinds(job)[-1] == "cancel_too_late"
    with bench.db.connection() as tx, pytest.raises(Conflict, match="already succeeded"):
        transitions.cancel(tx, job, "o")


def test_what_is_not_there_cannot_be_cancelled_or_retried(bench: Any) -> None:
    for act in (transitions.cancel, transitions.retry):
        with bench.db.connection() as tx, pytest.raises(NotFound):
            act(tx, new_id(), "o")


# --- succeed ---


def test_success_folds_the_slices_into_a_summary(bench: Any) -> None:
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


def test_a_job_without_slices_succeeds_with_an_empty_summary(bench: Any) -> None:
    job = bench.enqueue()
    (init,) = bench.take(job)
    known = {"fingerprint": {"size": 5}, "size_bytes": 5, "hashing": None, "digests": None, "existed": None}
    with bench.db.connection() as tx:
        transitions.save_progress(tx, init, known, LEASE)
        transitions.succeed(tx, init, {"proof": "mark"})
    assert bench.row(job)["result"]["slices"] == {"slices": 0, "sends": 0, "failed_attempts": 0, "deaths": 0}
    assert bench.kinds(job)[-1] == "stored_at_once"


# --- retry, pause, resume ---


def test_a_retry_keeps_session_and_checkpoints(bench: Any) -> None:
    job = bench.uploading(3)
    done, failing = bench.take(job, 0, 1)
    bench.checkpoint(done)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        assert transitions.retry(tx, job, "o") is JobState.QUEUED
    assert bench.states(job) == ["done", "pending", "pending"]
    assert at(bench, job, "epoch", "run", "session", "error") == (1, 2, {"handle": "s-1"}, None)
    assert [row["attempts"] for row in bench.slices(job)] == [0, 0, 0]
    assert bench.events(job)[-1]["cause"] == {"force": False, "fresh": False}


@pytest.mark.parametrize("code", sorted(transitions.FRESH_AFTER))
def test_a_retry_after_the_source_or_session_is_gone_starts_afresh(bench: Any, code: str) -> None:
    job = bench.uploading(2)
    done, failing = bench.take(job, 0, 1)
    bench.checkpoint(done)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR | {"code": code})
        transitions.retry(tx, job, "o")
    assert at(bench, job, "epoch", "session", "fingerprint", "slices_total") == (2, None, None, None)
    assert (bench.slices(job), bench.row(job)["bytes_done"]) == ([], 0)


def test_a_retry_of_a_cancelled_job_starts_afresh(bench: Any) -> None:
    job = bench.enqueue()
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.retry(tx, job, "o") is JobState.QUEUED
    assert at(bench, job, "state", "step", "epoch", "finished_at") == ("queued", "pending", 2, None)


def test_a_retry_is_refused_while_another_job_holds_the_target(bench: Any, look: Any) -> None:
    job = bench.enqueue(key="k")
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
    bench.enqueue(key="k")
    with bench.db.connection() as tx:
        before = look(tx)
    with pytest.raises(Conflict) as refused, bench.db.transaction() as tx:
        transitions.retry(tx, job, "o", force=True)
    assert refused.value.code == "key_busy"
    with bench.db.connection() as tx:
        assert look(tx) == before


def test_a_retry_is_refused_after_a_newer_job_has_replaced_the_object_unless_forced(bench: Any) -> None:
    job = bench.enqueue(key="k")
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
    newer = bench.finishing(1, key="k")
    (finish,) = bench.take(newer)
    with bench.db.connection() as tx:
        transitions.succeed(tx, finish, {})
        with pytest.raises(Conflict) as refused:
            transitions.retry(tx, job, "o")
        assert (refused.value.code, refused.value.extra) == ("superseded", {"job_id": str(newer)})
        assert transitions.retry(tx, job, "o", force=True) is JobState.QUEUED
    assert bench.events(job)[-1]["cause"]["force"] is True


def test_an_older_success_supersedes_nothing(bench: Any) -> None:
    older = bench.finishing(1, key="k")
    (finish,) = bench.take(older)
    with bench.db.connection() as tx:
        transitions.succeed(tx, finish, {})
    job = bench.enqueue(key="k")
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.retry(tx, job, "o") is JobState.QUEUED


@pytest.mark.parametrize("where", ["succeeded", "cancelling"])
def test_what_has_succeeded_or_is_being_cancelled_cannot_be_retried(bench: Any, where: str) -> None:
    job = bench.finishing(1)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        if where == "succeeded":
            transitions.succeed(tx, finish, {})
        else:
            transitions.cancel(tx, job, "o")
        with pytest.raises(Conflict) as refused:
            transitions.retry(tx, job, "o")
    assert refused.value.code == "not_retryable"


def test_a_retry_of_a_live_job_changes_nothing(bench: Any, look: Any) -> None:
    job = bench.uploading(1)
    with bench.db.connection() as tx:
        before = look(tx)
        assert transitions.retry(tx, job, "o") is JobState.UPLOADING
        assert look(tx) == before


def test_a_paused_job_begins_nothing_and_ends_what_is_in_flight(bench: Any) -> None:
    job = bench.uploading(2)
    (sending,) = bench.take(job, 0)
    bench.dispatch(job, 1)
    message = bench.claim_of(job, 1)
    with bench.db.connection() as tx:
        transitions.pause(tx, job, "o", "why")
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, message, low_speed=1, slack=LEASE)
    assert bench.states(job) == ["sending", "pending"]
    assert bench.dispatch(job, 1) == []
    assert bench.checkpoint(sending)[job, 0, sending.token]["slices_left"] == 1
    assert at(bench, job, "pause_reason", "run") == ("why", 2)
    with bench.db.connection() as tx:
        transitions.pause(tx, job, "o", "again")
    assert at(bench, job, "pause_reason", "run") == ("why", 2)
    with bench.db.connection() as tx:
        assert transitions.retry(tx, job, "o") is JobState.UPLOADING
    assert at(bench, job, "paused_at", "pause_reason", "run") == (None, None, 3)
    assert len(bench.dispatch(job, 1)) == 1
    assert bench.kinds(job)[-2:] == ["paused", "resumed"]


def test_a_paused_job_with_nothing_left_still_finishes(bench: Any) -> None:
    job = bench.uploading(1)
    (sending,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        transitions.pause(tx, job, "o", "why")
    bench.checkpoint(sending)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.succeed(tx, finish, {})
    assert bench.row(job)["state"] == "succeeded"


# --- rescue ---


@pytest.mark.parametrize(("how", "deaths"), [("dead", 1), ("stopped", 0)])
def test_only_a_death_counts_as_one(bench: Any, how: str, deaths: int) -> None:
    uploading, initializing = bench.uploading(2), bench.enqueue()
    bench.take(uploading, 0)
    bench.take(initializing)
    bench.end_worker(bench.worker, how=how)
    with bench.db.connection() as tx:
        freed = {(row["job_id"], row["number"]): row["deaths"] for row in transitions.rescue(tx)}
        assert transitions.rescue(tx) == []
    assert freed == {(uploading, 0): deaths, (initializing, None): deaths}
    assert at(bench, initializing, "state", "step", "worker", "deaths") == ("queued", "pending", None, deaths)
    row = bench.slices(uploading)[0]
    assert (row["state"], row["worker"], row["attempts"], row["deaths"]) == ("pending", None, 0, deaths)
    assert bench.events(initializing)[-1]["kind"] == "worker_lost"
    assert bench.events(uploading)[-1]["cause"] == {"slices": 1}


def test_a_lease_that_has_ended_frees_without_a_death(bench: Any) -> None:
    job, other = bench.uploading(2), bench.finishing(1)
    bench.take(job, 0)
    bench.take(other)
    with bench.db.connection() as tx:
        assert transitions.rescue(tx) == []
        bench.run("UPDATE slice SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
        bench.run("UPDATE job SET lease_until = now() - interval '1 second' WHERE step = 'running'")
        assert [row["deaths"] for row in transitions.rescue(tx)] == [0, 0]
    assert at(bench, other, "state", "step") == ("finishing", "pending")


def test_a_worker_that_nobody_knows_holds_nothing(bench: Any) -> None:
    job = bench.uploading(1)
    bench.take(job, 0)
    bench.run("DELETE FROM worker")
    with bench.db.connection() as tx:
        assert [row["deaths"] for row in transitions.rescue(tx)] == [0]


def test_what_a_dead_worker_held_of_a_cancelled_job_makes_way_for_the_abort(bench: Any) -> None:
    job = bench.enqueue()
    bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        bench.end_worker(bench.worker)
        assert not transitions.promote_due(tx)
        transitions.rescue(tx)
        assert transitions.promote_due(tx)
    assert at(bench, job, "state", "step") == ("cancelling", "pending")


def test_a_quarantine_fails_the_job_and_nothing_that_began_afresh(bench: Any) -> None:
    job = bench.uploading(2)
    bench.dispatch(job, 0)
    with bench.db.connection() as tx:
        transitions.quarantine(tx, job, 2, ERROR)
        assert bench.row(job)["state"] == "uploading"
        transitions.quarantine(tx, job, 1, ERROR | {"code": "quarantined"})
    assert bench.row(job)["error"]["code"] == "quarantined"
    assert at(bench, job, "state", "step") == ("failed", "idle")
    assert bench.states(job) == ["pending", "pending"]
    assert bench.events(job)[-1]["actor"] == "dispatcher"


# --- dispatch ---


def test_what_is_marked_gets_a_token_and_what_is_not_due_none(bench: Any) -> None:
    due, waiting, paused = bench.enqueue(), bench.enqueue(), bench.enqueue()
    bench.run("UPDATE job SET not_before = now() + interval '1 hour' WHERE id = %s", waiting)
    with bench.db.connection() as tx:
        transitions.pause(tx, paused, "o", "why")
        marked = transitions.dispatch(tx, [due, waiting, paused, new_id()], [])
        assert [(row["job_id"], row["token"], row["state"]) for row in marked] == [(due, 1, "queued")]
        assert transitions.dispatch(tx, [due], []) == []
        again = transitions.redispatch(tx)
        assert [(row["job_id"], row["token"]) for row in again] == [(due, 1)]


def test_only_what_was_dispatched_before_is_published_again(bench: Any) -> None:
    job = bench.uploading(2)
    bench.dispatch(job, 0)
    (moment,) = bench.run("SELECT clock_timestamp() AS now")
    bench.dispatch(job, 1)
    with bench.db.connection() as tx:
        assert [row["number"] for row in transitions.redispatch(tx, moment["now"])] == [0]
        assert [row["number"] for row in transitions.redispatch(tx, moment["now"])] == []
        assert sorted(row["number"] for row in transitions.redispatch(tx)) == [0, 1]


@pytest.mark.parametrize("end", ["pause", "cancel", "quarantine"])
def test_a_slice_marked_while_its_job_was_held_back_is_taken_back(bench: Any, end: str) -> None:
    """The dispatcher marks slices without a lock on their job: a cancel may commit between its look and its mark."""
    job = bench.uploading(2)
    act = {
        "pause": lambda tx: transitions.pause(tx, job, "o", "why"),
        "cancel": lambda tx: transitions.cancel(tx, job, "o"),
        "quarantine": lambda tx: transitions.quarantine(tx, job, 1, ERROR),
    }[end]
    with bench.db.connection() as tx:
        act(tx)
        bench.run("UPDATE slice SET state = 'dispatched', token = token + 1, dispatched_at = now() WHERE number = 1")
        assert transitions.redispatch(tx) == []
        transitions.promote_due(tx)
    assert bench.states(job) == ["pending", "pending"]


# --- a claim whose answer was lost ---


def test_a_step_claimed_again_by_its_holder_is_still_his(bench: Any) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        row = transitions.claim_step(tx, claim, JobState.QUEUED, LEASE, again=True)
        assert row["state"] == "initializing"
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
        other = bench.claim_of(job, worker=bench.start_worker())
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, other, JobState.QUEUED, LEASE, again=True)
    assert bench.kinds(job).count("init_claimed") == 1


def test_a_slice_claimed_again_by_its_holder_is_still_his(bench: Any) -> None:
    job = bench.uploading(1)
    (claim,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        row = transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE, again=True)
        assert row["session"] == {"handle": "s-1"}
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
        other = bench.claim_of(job, 0, worker=bench.start_worker())
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, other, low_speed=1, slack=LEASE, again=True)
    bench.checkpoint(claim)
    with bench.db.connection() as tx, pytest.raises(StaleClaim):
        transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE, again=True)


def test_a_claim_that_was_never_granted_is_granted_the_second_time(bench: Any) -> None:
    job = bench.uploading(1)
    bench.dispatch(job, 0)
    with bench.db.connection() as tx:
        transitions.claim_slice(tx, bench.claim_of(job, 0), low_speed=1, slack=LEASE, again=True)
    assert bench.states(job) == ["sending"]


def test_the_lease_of_a_slice_grows_with_its_size(bench: Any) -> None:
    job = bench.uploading(2)
    bench.dispatch(job, 0, 1)
    with bench.db.connection() as tx:
        for number in (0, 1):
            transitions.claim_slice(tx, bench.claim_of(job, number), low_speed=2, slack=timedelta(seconds=45))
    leases = [(row["lease_until"] - row["claimed_at"]).total_seconds() for row in bench.slices(job)]
    assert leases == [45 + 10 / 2, 45 + 7 / 2]
