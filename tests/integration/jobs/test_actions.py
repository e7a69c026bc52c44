"""Priority, start and a retry from scratch, and what the history keeps of the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import ERROR, SESSION, SOON, UNAVAILABLE, everything, retry_job
from worker.errors import Conflict
from worker.jobs import breakers, control, due, transitions
from worker.jobs.held_back import held_back
from worker.jobs.states import STEPS, JobState, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase

SAID = {"reason": "the customer waits", "person": "ann"}
WITH_A_REASON: dict[str, Callable[..., Any]] = {
    "cancel": control.cancel,
    "resume": control.resume,
    "retry": control.retry,
    "prioritise": lambda tx, jobs, actor, **kwargs: control.prioritise(tx, jobs, actor, 0, **kwargs),
    "start": control.start_now,
    "pause": lambda tx, jobs, actor, **kwargs: control.pause(tx, jobs, actor, "the customer waits", **kwargs),
}
EVENTS = {
    "cancel": "cancel_requested", "resume": "resumed", "retry": "retried", "prioritise": "priority_changed",
    "start": "start_requested", "pause": "paused",
}  # fmt: skip


def ready_for(db: JobsDatabase, action: str) -> UUID:
    """Return a job that the action changes."""
    job = db.uploading(1)
    if action == "retry":
        db.force(job, JobState.FAILED, Step.IDLE)
    if action == "resume":
        db.run("UPDATE job SET paused_at = now() WHERE id = %s", job)
    if action == "start":
        db.run("UPDATE slice SET not_before = now() + interval '1 hour' WHERE job_id = %s", job)
    return job


@pytest.mark.parametrize("action", WITH_A_REASON)
@pytest.mark.parametrize("said", [SAID, {}], ids=["a reason", "none"])
def test_the_history_keeps_what_was_said(db: JobsDatabase, action: str, said: dict[str, str]) -> None:
    job = ready_for(db, action)
    with db.transaction() as tx:
        (result,) = WITH_A_REASON[action](tx, [job], "o", cause=said)
        (again,) = WITH_A_REASON[action](tx, [job], "o", cause=said)
    assert (result.changed, again.changed) == (True, False)
    (event,) = [event for event in db.events(job) if event["kind"] == EVENTS[action]]
    assert (event["cause"] or {}).items() >= said.items()
    if action in {"cancel", "resume", "start"} and not said:
        assert event["cause"] is None


def test_a_pause_without_a_reason_has_none(db: JobsDatabase) -> None:
    job = db.uploading(1)
    with db.transaction() as tx:
        control.pause(tx, [job], "o", None)
    assert db.row(job)["pause_reason"] is None
    assert db.events(job)[-1]["cause"] is None


# --- priority ---


def test_a_priority_is_changed_in_every_state_but_succeeded(db: JobsDatabase) -> None:
    jobs = [db.enqueue() for _ in JobState]
    for job, state in zip(jobs, JobState, strict=True):
        db.force(job, state, STEPS[state][0])
    with db.transaction() as tx:
        results = control.prioritise(tx, jobs, "o", 0)
    assert {result.state for result in results if not result.changed} == {"succeeded"}
    assert [result.state for result in results] == list(JobState)
    assert {db.row(job)["priority"] for job in jobs} == {0, 5}


def test_a_job_of_another_priority_comes_first_from_now_on(db: JobsDatabase) -> None:
    first, second = db.enqueue(), db.enqueue()
    with db.transaction() as tx:
        control.prioritise(tx, [second], "o", 0)
        found = due.due_steps(tx, per_lane=1, blocked=[], whole_bytes=0)
    assert [item.job_id for item in found] == [second]
    assert db.events(second)[-1]["cause"] == {"from": 5, "to": 0}
    assert db.row(first)["priority"] == 5


# --- start ---


def test_a_start_ends_the_wait_of_step_and_slices(db: JobsDatabase) -> None:
    queued, uploading = db.enqueue(), db.uploading(3)
    (step,) = db.take(queued)
    slices = db.take(uploading, 0, 1)
    with db.connection() as tx:
        for claim in (step, *slices):
            transitions.release(tx, claim, SOON)
    assert db.row(queued)["not_before"] is not None
    with db.transaction() as tx:
        results = control.start_now(tx, [queued, uploading], "o")
    assert [result.changed for result in results] == [True, True]
    assert db.row(queued)["not_before"] is None
    assert [row["not_before"] for row in db.slices(uploading)] == [None] * 3
    assert db.row(queued)["failing_since"] is not None  # its time in failure goes on
    assert len(db.dispatch(queued)) == 1
    assert len(db.dispatch(uploading, 0, 1)) == 2


def test_a_start_changes_nothing_else(db: JobsDatabase) -> None:
    ended, idle, sending = db.uploading(1), db.uploading(1), db.uploading(1)
    db.take(sending, 0)
    db.force(ended, JobState.FAILED, Step.IDLE)
    with db.connection() as tx:
        before = everything(tx)
        results = control.start_now(tx, [ended, idle, sending], "o")
        assert everything(tx) == before
    assert [(result.state, result.changed) for result in results] == [
        ("failed", False), ("uploading", False), ("uploading", False),
    ]  # fmt: skip


def test_what_holds_a_started_job_back_is_said(db: JobsDatabase) -> None:
    job = db.uploading(1)
    with db.transaction() as tx:
        assert held_back(tx, job) == []
        control.pause(tx, [job], "o", "maintenance")
        breakers.open_breaker(tx, "main", UNAVAILABLE, 60.0)
        assert [(each.by, each.reason) for each in held_back(tx, job)] == [
            ("job_paused", "maintenance"), ("store_unusable", "no"),
        ]  # fmt: skip
        control.cancel(tx, [job], "o")
        assert [each.by for each in held_back(tx, job)] == ["store_unusable"]


# --- retry from scratch ---


def failed(db: JobsDatabase) -> UUID:
    job = db.uploading(3, held=[0])
    (claim,) = db.take(job, 1)
    with db.connection() as tx:
        transitions.fail(tx, claim, ERROR)
    return job


def test_a_retry_from_scratch_keeps_nothing_and_writes_the_session_down(db: JobsDatabase) -> None:
    job = failed(db)
    with db.transaction() as tx:
        assert retry_job(tx, job, scratch=True) == "queued"
    row = db.row(job)
    forgotten = ("session", "fingerprint", "hashing", "digests", "slices_total", "slices_left", "existed", "error")
    assert [row[name] for name in forgotten] == [None] * len(forgotten)
    assert (row["epoch"], row["bytes_done"], row["state"], db.slices(job)) == (2, 0, "queued", [])
    retried, left = sorted(db.events(job)[-2:], key=lambda event: str(event["kind"]))
    assert retried["cause"] == {"force": False, "fresh": True, "from": "scratch"}
    assert (left["kind"], left["cause"]["session"]) == ("session_left_open", SESSION)


def test_a_retry_keeps_what_the_store_has_by_itself(db: JobsDatabase) -> None:
    job = failed(db)
    with db.transaction() as tx:
        retry_job(tx, job)
    assert db.columns(job, "epoch", "session") == (1, SESSION)
    assert db.events(job)[-1]["cause"] == {"force": False, "fresh": False}


def test_on_a_live_job_a_retry_from_scratch_changes_nothing(db: JobsDatabase) -> None:
    """So it can be repeated; a paused job, which a retry resumes, is refused."""
    live, paused = db.uploading(1), db.uploading(1)
    with db.transaction() as tx:
        control.pause(tx, [paused], "o", "why")
        before = everything(tx)
        assert retry_job(tx, live, scratch=True) == "uploading"
        with pytest.raises(Conflict) as refused:
            retry_job(tx, paused, scratch=True)
        assert everything(tx) == before
    assert refused.value.code == "not_retryable"


def test_a_late_checkpoint_of_before_is_void(db: JobsDatabase) -> None:
    job = db.uploading(2)
    first, second = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.fail(tx, first, ERROR)
    with db.transaction() as tx:
        retry_job(tx, job, scratch=True)
    assert db.checkpoint(second) == {}
