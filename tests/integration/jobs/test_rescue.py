"""The dispatcher's statements: rescue, quarantine, dispatch and redispatch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.database import ERROR, cancel_job
from worker.ids import new_id
from worker.jobs import control, transitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection


# --- rescue ---


@pytest.mark.parametrize(("how", "deaths"), [("dead", 1), ("stopped", 0)])
def test_only_a_death_counts_as_one(db: JobsDatabase, how: str, deaths: int) -> None:
    uploading, initializing = db.uploading(2), db.enqueue()
    db.take(uploading, 0)
    db.take(initializing)
    db.end_worker(db.worker, how=how)
    with db.connection() as tx:
        freed = {(row.job_id, row.number): row.deaths for row in transitions.rescue(tx)}
        assert transitions.rescue(tx) == []
    assert freed == {(uploading, 0): deaths, (initializing, None): deaths}
    assert db.columns(initializing, "state", "step", "worker", "deaths") == ("queued", "pending", None, deaths)
    row = db.slices(uploading)[0]
    assert (row["state"], row["worker"], row["attempts"], row["deaths"]) == ("pending", None, 0, deaths)
    assert db.events(initializing)[-1]["kind"] == "worker_lost"
    assert db.events(uploading)[-1]["cause"] == {"slices": 1}


def test_a_lease_that_has_ended_frees_without_a_death(db: JobsDatabase) -> None:
    job, other = db.uploading(2), db.finishing(1)
    db.take(job, 0)
    db.take(other)
    with db.connection() as tx:
        assert transitions.rescue(tx) == []
        db.run("UPDATE slice SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
        db.run("UPDATE job SET lease_until = now() - interval '1 second' WHERE step = 'running'")
        assert [row.deaths for row in transitions.rescue(tx)] == [0, 0]
    assert db.columns(other, "state", "step") == ("finishing", "pending")


def test_an_unknown_worker_holds_nothing(db: JobsDatabase) -> None:
    job = db.uploading(1)
    db.take(job, 0)
    db.run("DELETE FROM worker")
    with db.connection() as tx:
        assert [row.deaths for row in transitions.rescue(tx)] == [0]


def test_what_a_dead_worker_held_of_a_cancelled_job_makes_way_for_the_abort(db: JobsDatabase) -> None:
    job = db.enqueue()
    db.take(job)
    with db.connection() as tx:
        cancel_job(tx, job)
        db.end_worker(db.worker)
        assert not transitions.promote_due(tx)
        transitions.rescue(tx)
        assert transitions.promote_due(tx)
    assert db.columns(job, "state", "step") == ("cancelling", "pending")


def test_a_quarantine_fails_the_job_and_nothing_that_began_afresh(db: JobsDatabase) -> None:
    job = db.uploading(2)
    db.dispatch(job, 0)
    with db.connection() as tx:
        transitions.quarantine(tx, job, 2, ERROR)
        assert db.row(job)["state"] == "uploading"
        transitions.quarantine(tx, job, 1, ERROR | {"code": "quarantined"})
    assert db.row(job)["error"]["code"] == "quarantined"
    assert db.columns(job, "state", "step") == ("failed", "idle")
    assert db.states(job) == ["pending", "pending"]
    assert db.events(job)[-1]["actor"] == "dispatcher"


# --- dispatch ---


def test_a_dispatched_step_gets_a_token_and_one_that_is_not_due_none(db: JobsDatabase) -> None:
    due, waiting, paused = db.enqueue(), db.enqueue(), db.enqueue()
    db.run("UPDATE job SET not_before = now() + interval '1 hour' WHERE id = %s", waiting)
    with db.connection() as tx:
        control.pause(tx, [paused], "o", "why")
        marked = transitions.dispatch(tx, [due, waiting, paused, new_id()], [])
        assert [(row.job_id, row.token, row.state) for row in marked] == [(due, 1, "queued")]
        assert transitions.dispatch(tx, [due], []) == []
        resent = transitions.redispatch(tx)
        assert [(row.job_id, row.token) for row in resent] == [(due, 1)]


def test_only_what_was_dispatched_before_is_redispatched(db: JobsDatabase) -> None:
    job = db.uploading(2)
    db.dispatch(job, 0)
    (moment,) = db.run("SELECT clock_timestamp() AS now")
    db.dispatch(job, 1)
    with db.connection() as tx:
        assert [row.number for row in transitions.redispatch(tx, moment["now"])] == [0]
        assert [row.number for row in transitions.redispatch(tx, moment["now"])] == []
        assert sorted(row.number for row in transitions.redispatch(tx)) == [0, 1]


@pytest.mark.parametrize("end", ["pause", "cancel", "quarantine"])
def test_a_slice_dispatched_while_its_job_was_held_back_is_taken_back(db: JobsDatabase, end: str) -> None:
    """The dispatcher writes slices without a lock on their job: a cancel may commit between its read and its write."""
    job = db.uploading(2)
    moves: dict[str, Callable[[Connection], object]] = {
        "pause": lambda tx: control.pause(tx, [job], "o", "why"),
        "cancel": lambda tx: cancel_job(tx, job),
        "quarantine": lambda tx: transitions.quarantine(tx, job, 1, ERROR),
    }
    with db.connection() as tx:
        moves[end](tx)
        db.run("UPDATE slice SET state = 'dispatched', token = token + 1, dispatched_at = now() WHERE number = 1")
        assert transitions.redispatch(tx) == []
        transitions.promote_due(tx)
    assert db.states(job) == ["pending", "pending"]
