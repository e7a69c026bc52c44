"""What an operator may do with a job: put it back to work, hold it back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.bench import everything, open_transaction, wait_until_blocked
from worker.errors import Conflict, StaleClaim
from worker.jobs import leases, transitions
from worker.jobs.leases import Claim, Deferral
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


def test_a_retry_keeps_session_and_checkpoints(bench: Bench) -> None:
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
def test_a_retry_after_the_source_or_session_is_gone_starts_afresh(bench: Bench, code: str) -> None:
    job = bench.uploading(2)
    done, failing = bench.take(job, 0, 1)
    bench.checkpoint(done)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR | {"code": code})
        transitions.retry(tx, job, "o")
    assert at(bench, job, "epoch", "session", "fingerprint", "slices_total") == (2, None, None, None)
    assert (bench.slices(job), bench.row(job)["bytes_done"]) == ([], 0)


@pytest.mark.parametrize(
    ("held", "held_by", "fresh"),
    [([0], None, True), ([0], "digest", False), ([], None, False)],
    ids=["by-size", "by-digest", "nothing"],
)
def test_a_retry_goes_on_with_slices_of_others_only_if_their_content_was_shown(
    bench: Bench, held: list[int], held_by: str | None, *, fresh: bool
) -> None:
    """0.1 took over what it found by its size, and wrote down no more than how many slices."""
    job = bench.enqueue(verify="file")
    (init,) = bench.take(job)
    bench.open(init, 3, held=held, held_by=held_by)
    (failing,) = bench.take(job, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        assert leases.adopted_by_size(tx, job, 1) is fresh
        transitions.retry(tx, job, "o")
        assert not leases.adopted_by_size(tx, job, bench.row(job)["epoch"])
    assert bench.events(job)[-1]["cause"] == {"force": False, "fresh": fresh}
    assert at(bench, job, "epoch", "session") == ((2, None) if fresh else (1, {"handle": "s-1"}))


@pytest.mark.parametrize("error", [{"code": "source_gone"}, {"code": "source_changed", "replaced": True}])
def test_a_retry_leaves_it_to_init_whether_the_file_is_the_one_that_it_was(bench: Bench, error: dict[str, Any]) -> None:
    job = bench.uploading(2)
    done, failing = bench.take(job, 0, 1)
    bench.checkpoint(done)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR | error)
        transitions.retry(tx, job, "o")
    assert at(bench, job, "epoch", "session", "fingerprint") == (1, {"handle": "s-1"}, {"size": 1})
    assert bench.states(job) == ["done", "pending"]
    (init,) = bench.take(job)
    bench.run("""UPDATE job SET digests = '{"value": "of the old file"}' WHERE id = %s""", job)
    with bench.db.connection() as tx:
        assert transitions.take_other_file(tx, init, ERROR | {"code": "source_changed"}) is JobState.QUEUED
    assert at(bench, job, "epoch", "session", "fingerprint", "digests", "slices_total", "session_losses") == (
        *(2, None, None, None, None, 0),
    )
    assert (bench.slices(job), bench.row(job)["bytes_done"]) == ([], 0)
    assert bench.kinds(job)[-1] == "session_lost"


def test_a_session_lost_while_its_failed_job_is_put_back_to_work_voids_the_epoch(bench: Bench) -> None:
    """The statement began when the job had failed, and goes on when it uploads again."""
    job = bench.uploading(3)
    failing, still_sending = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.fail(tx, failing, ERROR)

    def lose_session() -> JobState:
        with bench.db.connection() as tx:
            return transitions.new_epoch(tx, still_sending, ERROR, None)

    with ThreadPoolExecutor(1) as pool:
        with open_transaction(bench) as tx:
            transitions.retry(tx, job, "o")
            waiting = pool.submit(lose_session)
            wait_until_blocked(bench)
            (message,) = transitions.dispatch(tx, [job], [])
            claim = Claim(job, None, message["token"], message["epoch"], bench.worker)
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
            transitions.reconcile(tx, claim, [])
        assert waiting.result(120) is JobState.QUEUED
    assert at(bench, job, "epoch", "run", "finished_at", "session_losses") == (2, 2, None, 1)


def test_a_retry_of_a_cancelled_job_starts_afresh(bench: Bench) -> None:
    job = bench.enqueue()
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.retry(tx, job, "o") is JobState.QUEUED
    assert at(bench, job, "state", "step", "epoch", "finished_at") == ("queued", "pending", 2, None)


def test_a_retry_is_refused_while_another_job_holds_the_target(bench: Bench) -> None:
    job = bench.enqueue(key="k")
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
    bench.enqueue(key="k")
    with bench.db.connection() as tx:
        before = everything(tx)
    with pytest.raises(Conflict) as refused, bench.db.transaction() as tx:
        transitions.retry(tx, job, "o", force=True)
    assert refused.value.code == "key_busy"
    with bench.db.connection() as tx:
        assert everything(tx) == before


def test_a_retry_is_refused_after_a_newer_job_has_replaced_the_object_unless_forced(bench: Bench) -> None:
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


def test_an_older_success_supersedes_nothing(bench: Bench) -> None:
    older = bench.finishing(1, key="k")
    (finish,) = bench.take(older)
    with bench.db.connection() as tx:
        transitions.succeed(tx, finish, {})
    job = bench.enqueue(key="k")
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert transitions.retry(tx, job, "o") is JobState.QUEUED


@pytest.mark.parametrize("where", ["succeeded", "cancelling"])
def test_what_has_succeeded_or_is_being_cancelled_cannot_be_retried(bench: Bench, where: str) -> None:
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


def test_a_retry_of_a_live_job_changes_nothing(bench: Bench) -> None:
    job = bench.uploading(1)
    with bench.db.connection() as tx:
        before = everything(tx)
        assert transitions.retry(tx, job, "o") is JobState.UPLOADING
        assert everything(tx) == before


def test_a_paused_job_begins_nothing_and_ends_what_is_in_flight(bench: Bench) -> None:
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


def test_a_paused_job_with_nothing_left_still_finishes(bench: Bench) -> None:
    job = bench.uploading(1)
    (sending,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        transitions.pause(tx, job, "o", "why")
    bench.checkpoint(sending)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.succeed(tx, finish, {})
    assert bench.row(job)["state"] == "succeeded"


def test_a_revoked_abort_is_not_held_back_but_goes_out_under_another_id(bench: Bench) -> None:
    job = bench.uploading(1)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        transitions.promote_due(tx)
        (revoked,) = bench.dispatch(job)
        transitions.pause(tx, job, "o", "revoked")
    assert at(bench, job, "state", "step", "paused_at") == ("cancelling", "pending", None)
    (again,) = bench.dispatch(job)
    assert (again["run"], again["token"]) == (revoked["run"] + 1, revoked["token"] + 1)
