"""What becomes of slices: recorded, put off, and what the store's own list says of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from worker.jobs import transitions
from worker.jobs.leases import Deferral

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


# --- checkpoint and release of slices ---


def test_the_last_checkpoint_moves_the_job_on(bench: Bench) -> None:
    job = bench.uploading(3)
    first, second, third = bench.take(job, 0, 1, 2)
    answers = bench.checkpoint(first, second)
    assert {row["slices_left"] for row in answers.values()} == {1}
    assert at(bench, job, "state", "bytes_done") == ("uploading", 20)
    (last,) = bench.checkpoint(third).values()
    assert (last["state"], last["slices_left"]) == ("finishing", 0)
    assert at(bench, job, "state", "step", "bytes_done") == ("finishing", "pending", 27)
    assert bench.kinds(job).count("slices_done") == 1


def test_a_slice_that_comes_twice_in_one_batch_counts_once(bench: Bench) -> None:
    job = bench.uploading(3)
    (claim,) = bench.take(job, 0)
    assert bench.checkpoint(claim, claim)[job, 0, claim.token]["slices_left"] == 2
    assert at(bench, job, "state", "bytes_done") == ("uploading", 10)


def test_the_event_of_the_last_checkpoint_names_its_worker(bench: Bench) -> None:
    job = bench.finishing(1)
    (told,) = (event for event in bench.events(job) if event["kind"] == "slices_done")
    assert told["actor"] == f"worker {bench.worker}"


def test_a_checkpoint_ends_the_time_in_failure(bench: Bench) -> None:
    job = bench.uploading(3)
    first, second = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.release(tx, first, SOON)
    assert at(bench, job, "error") == (UNAVAILABLE,)
    assert bench.row(job)["failing_since"] is not None
    bench.checkpoint(second)
    assert at(bench, job, "error", "failing_since") == (None, None)


def test_a_slice_put_off_waits_counts_and_is_told_once_a_reason(bench: Bench) -> None:
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


def test_an_interrupted_slice_leaves_no_trace(bench: Bench) -> None:
    job = bench.uploading(2)
    (claim,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    row = bench.slices(job)[0]
    assert (row["state"], row["attempts"], row["not_before"], row["error"]) == ("pending", 0, None, None)
    assert at(bench, job, "failing_since", "error") == (None, None)
    assert bench.kinds(job)[-1] == "session_opened"


# --- reconcile ---


def test_slices_that_the_list_lacks_are_sent_again(bench: Bench) -> None:
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


def test_a_list_with_every_slice_leads_to_finish_again(bench: Bench) -> None:
    job = bench.finishing(2)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.reconcile(tx, claim, [0, 1])
    assert at(bench, job, "state", "step") == ("finishing", "pending")
    assert bench.kinds(job)[-1] == "finish_deferred"


def test_only_what_was_claimed_in_this_session_is_believed_of_a_list(bench: Bench) -> None:
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


def test_a_slice_that_is_still_being_sent_stays_with_its_worker(bench: Bench) -> None:
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


def test_a_checkpoint_between_retry_and_reconcile_is_counted_once(bench: Bench) -> None:
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


def test_a_cancelled_job_reconciles_nothing(bench: Bench) -> None:
    job = bench.finishing(2)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.reconcile(tx, claim, [])["state"] == "cancelling"
    assert at(bench, job, "state", "step", "slices_left") == ("cancelling", "idle", 0)
    assert bench.states(job) == ["done", "done"]
