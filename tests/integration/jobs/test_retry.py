"""The moves of an operator: retry and pause."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import ERROR, LEASE, cancel_job, everything, retry_job, wait_until_blocked
from worker.errors import Conflict, StaleClaim
from worker.jobs import control, leases, transitions
from worker.jobs.leases import Claim
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase


def test_a_retry_keeps_session_and_checkpoints(db: JobsDatabase) -> None:
    job = db.uploading(3)
    done, failing = db.take(job, 0, 1)
    db.checkpoint(done)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        assert retry_job(tx, job) is JobState.QUEUED
    assert db.states(job) == ["done", "pending", "pending"]
    assert db.columns(job, "epoch", "run", "session", "error") == (1, 2, {"handle": "s-1"}, None)
    assert [row["attempts"] for row in db.slices(job)] == [0, 0, 0]
    assert db.events(job)[-1]["cause"] == {"force": False, "fresh": False}


@pytest.mark.parametrize("code", sorted(control.FRESH_AFTER))
def test_a_retry_after_the_source_or_session_is_gone_starts_afresh(db: JobsDatabase, code: str) -> None:
    job = db.uploading(2)
    done, failing = db.take(job, 0, 1)
    db.checkpoint(done)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR | {"code": code})
        retry_job(tx, job)
    assert db.columns(job, "epoch", "session", "fingerprint", "slices_total") == (2, None, None, None)
    assert (db.slices(job), db.row(job)["bytes_done"]) == ([], 0)


@pytest.mark.parametrize(
    ("held", "held_by", "fresh"),
    [([0], None, True), ([0], "digest", False), ([], None, False)],
    ids=["by-size", "by-digest", "nothing"],
)
def test_a_retry_goes_on_with_slices_of_others_only_if_their_content_was_proven(
    db: JobsDatabase, held: list[int], held_by: str | None, *, fresh: bool
) -> None:
    """Release 0.1 adopted slices by their size, and recorded only how many."""
    job = db.enqueue(verify="file")
    (init,) = db.take(job)
    db.open(init, 3, held=held, held_by=held_by)
    (failing,) = db.take(job, 1)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
        assert leases.adopted_by_size(tx, {job: 1}) == ({job} if fresh else set())
        retry_job(tx, job)
        assert not leases.adopted_by_size(tx, {job: db.row(job)["epoch"]})
    assert db.events(job)[-1]["cause"] == {"force": False, "fresh": fresh}
    assert db.columns(job, "epoch", "session") == ((2, None) if fresh else (1, {"handle": "s-1"}))


@pytest.mark.parametrize("error", [{"code": "source_gone"}, {"code": "source_changed", "replaced": True}])
def test_a_retry_leaves_it_to_init_whether_the_file_is_the_one_that_it_was(
    db: JobsDatabase, error: dict[str, Any]
) -> None:
    job = db.uploading(2)
    done, failing = db.take(job, 0, 1)
    db.checkpoint(done)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR | error)
        retry_job(tx, job)
    assert db.columns(job, "epoch", "session", "fingerprint") == (1, {"handle": "s-1"}, {"size": 1})
    assert db.states(job) == ["done", "pending"]
    (init,) = db.take(job)
    db.run("""UPDATE job SET digests = '{"value": "of the old file"}' WHERE id = %s""", job)
    with db.connection() as tx:
        assert transitions.take_other_file(tx, init, ERROR | {"code": "source_changed"}) is JobState.QUEUED
    assert db.columns(job, "epoch", "session", "fingerprint", "digests", "slices_total", "session_losses") == (
        *(2, None, None, None, None, 0),
    )
    assert (db.slices(job), db.row(job)["bytes_done"]) == ([], 0)
    assert db.kinds(job)[-1] == "session_lost"


def test_a_session_lost_while_its_failed_job_is_retried_voids_the_epoch(db: JobsDatabase) -> None:
    """The statement starts while the job has failed, and continues after a retry."""
    job = db.uploading(3)
    failing, still_sending = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR)

    def lose_session() -> JobState:
        with db.connection() as tx:
            return transitions.new_epoch(tx, still_sending, ERROR, None)

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            retry_job(tx, job)
            waiting = pool.submit(lose_session)
            wait_until_blocked(db)
            (message,) = transitions.dispatch(tx, [job], [])
            claim = Claim(job, None, message.token, message.epoch, db.worker)
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
            transitions.reconcile(tx, claim, [])
        assert waiting.result(120) is JobState.QUEUED
    assert db.columns(job, "epoch", "run", "finished_at", "session_losses") == (2, 2, None, 1)


def test_a_retry_of_a_cancelled_job_starts_afresh(db: JobsDatabase) -> None:
    job = db.enqueue()
    with db.connection() as tx:
        cancel_job(tx, job)
        assert retry_job(tx, job) is JobState.QUEUED
    assert db.columns(job, "state", "step", "epoch", "finished_at") == ("queued", "pending", 2, None)


def test_a_retry_is_refused_while_another_job_holds_the_target(db: JobsDatabase) -> None:
    job = db.enqueue(key="k")
    with db.connection() as tx:
        cancel_job(tx, job)
    db.enqueue(key="k")
    with db.connection() as tx:
        before = everything(tx)
    with pytest.raises(Conflict) as refused, db.transaction() as tx:
        retry_job(tx, job, force=True)
    assert refused.value.code == "key_busy"
    with db.connection() as tx:
        assert everything(tx) == before


def test_a_retry_is_refused_after_a_newer_job_has_replaced_the_object_unless_forced(db: JobsDatabase) -> None:
    job = db.enqueue(key="k")
    with db.connection() as tx:
        cancel_job(tx, job)
    newer = db.finishing(1, key="k")
    (finish,) = db.take(newer)
    with db.connection() as tx:
        transitions.succeed(tx, finish, {})
        with pytest.raises(Conflict) as refused:
            retry_job(tx, job)
        assert (refused.value.code, refused.value.extra) == ("superseded", {"job_id": str(newer)})
        assert retry_job(tx, job, force=True) is JobState.QUEUED
    assert db.events(job)[-1]["cause"]["force"] is True


def test_an_older_success_supersedes_nothing(db: JobsDatabase) -> None:
    older = db.finishing(1, key="k")
    (finish,) = db.take(older)
    with db.connection() as tx:
        transitions.succeed(tx, finish, {})
    job = db.enqueue(key="k")
    with db.connection() as tx:
        cancel_job(tx, job)
        assert retry_job(tx, job) is JobState.QUEUED


@pytest.mark.parametrize("where", ["succeeded", "cancelling"])
def test_what_has_succeeded_or_is_being_cancelled_cannot_be_retried(db: JobsDatabase, where: str) -> None:
    job = db.finishing(1)
    (finish,) = db.take(job)
    with db.connection() as tx:
        if where == "succeeded":
            transitions.succeed(tx, finish, {})
        else:
            cancel_job(tx, job)
        with pytest.raises(Conflict) as refused:
            retry_job(tx, job)
    assert refused.value.code == "not_retryable"


def test_a_retry_of_a_live_job_changes_nothing(db: JobsDatabase) -> None:
    job = db.uploading(1)
    with db.connection() as tx:
        before = everything(tx)
        assert retry_job(tx, job) is JobState.UPLOADING
        assert everything(tx) == before


def test_a_paused_job_begins_nothing_and_ends_what_is_in_flight(db: JobsDatabase) -> None:
    job = db.uploading(2)
    (sending,) = db.take(job, 0)
    db.dispatch(job, 1)
    message = db.claim_of(job, 1)
    with db.connection() as tx:
        control.pause(tx, [job], "o", "why")
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, message, low_speed=1, slack=LEASE)
    assert db.states(job) == ["sending", "pending"]
    assert db.dispatch(job, 1) == []
    assert db.checkpoint(sending)[job, 0, sending.token].slices_left == 1
    assert db.columns(job, "pause_reason", "run") == ("why", 2)
    with db.connection() as tx:
        control.pause(tx, [job], "o", "another reason")
    assert db.columns(job, "pause_reason", "run") == ("why", 2)
    with db.connection() as tx:
        assert retry_job(tx, job) is JobState.UPLOADING
    assert db.columns(job, "paused_at", "pause_reason", "run") == (None, None, 3)
    assert len(db.dispatch(job, 1)) == 1
    assert db.kinds(job)[-2:] == ["paused", "resumed"]


def test_a_paused_job_with_nothing_left_still_finishes(db: JobsDatabase) -> None:
    job = db.uploading(1)
    (sending,) = db.take(job, 0)
    with db.connection() as tx:
        control.pause(tx, [job], "o", "why")
    db.checkpoint(sending)
    (finish,) = db.take(job)
    with db.connection() as tx:
        transitions.succeed(tx, finish, {})
    assert db.row(job)["state"] == "succeeded"


def test_a_revoked_abort_is_not_paused_but_sent_under_another_id(db: JobsDatabase) -> None:
    job = db.uploading(1)
    with db.connection() as tx:
        cancel_job(tx, job)
        transitions.promote_due(tx)
        (revoked,) = db.dispatch(job)
        control.pause(tx, [job], "o", "revoked")
    assert db.columns(job, "state", "step", "paused_at") == ("cancelling", "pending", None)
    (resent,) = db.dispatch(job)
    assert (resent.run, resent.token) == (revoked.run + 1, revoked.token + 1)
