"""What the dispatcher does to rows: take back, quarantine, mark, publish again."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from worker.ids import new_id
from worker.jobs import transitions
from worker.jobs.leases import Deferral

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.bench import Bench
    from worker.db.pool import Tx


LEASE = timedelta(minutes=1)
ERROR = {"code": "store_refused", "message": "no", "advice": "look", "at": "2026-01-01T00:00:00+00:00"}
UNAVAILABLE = ERROR | {"code": "store_unavailable"}
SOON = Deferral(timedelta(minutes=5), UNAVAILABLE, attempt=True)
AT_ONCE = Deferral(None, None)


def at(bench: Bench, job: Any, *columns: str) -> tuple[Any, ...]:
    row = bench.row(job)
    return tuple(row[column] for column in columns)


# --- rescue ---


@pytest.mark.parametrize(("how", "deaths"), [("dead", 1), ("stopped", 0)])
def test_only_a_death_counts_as_one(bench: Bench, how: str, deaths: int) -> None:
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


def test_a_lease_that_has_ended_frees_without_a_death(bench: Bench) -> None:
    job, other = bench.uploading(2), bench.finishing(1)
    bench.take(job, 0)
    bench.take(other)
    with bench.db.connection() as tx:
        assert transitions.rescue(tx) == []
        bench.run("UPDATE slice SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
        bench.run("UPDATE job SET lease_until = now() - interval '1 second' WHERE step = 'running'")
        assert [row["deaths"] for row in transitions.rescue(tx)] == [0, 0]
    assert at(bench, other, "state", "step") == ("finishing", "pending")


def test_a_worker_that_nobody_knows_holds_nothing(bench: Bench) -> None:
    job = bench.uploading(1)
    bench.take(job, 0)
    bench.run("DELETE FROM worker")
    with bench.db.connection() as tx:
        assert [row["deaths"] for row in transitions.rescue(tx)] == [0]


def test_what_a_dead_worker_held_of_a_cancelled_job_makes_way_for_the_abort(bench: Bench) -> None:
    job = bench.enqueue()
    bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        bench.end_worker(bench.worker)
        assert not transitions.promote_due(tx)
        transitions.rescue(tx)
        assert transitions.promote_due(tx)
    assert at(bench, job, "state", "step") == ("cancelling", "pending")


def test_a_quarantine_fails_the_job_and_nothing_that_began_afresh(bench: Bench) -> None:
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


def test_what_is_marked_gets_a_token_and_what_is_not_due_none(bench: Bench) -> None:
    due, waiting, paused = bench.enqueue(), bench.enqueue(), bench.enqueue()
    bench.run("UPDATE job SET not_before = now() + interval '1 hour' WHERE id = %s", waiting)
    with bench.db.connection() as tx:
        transitions.pause(tx, paused, "o", "why")
        marked = transitions.dispatch(tx, [due, waiting, paused, new_id()], [])
        assert [(row["job_id"], row["token"], row["state"]) for row in marked] == [(due, 1, "queued")]
        assert transitions.dispatch(tx, [due], []) == []
        again = transitions.redispatch(tx)
        assert [(row["job_id"], row["token"]) for row in again] == [(due, 1)]


def test_only_what_was_dispatched_before_is_published_again(bench: Bench) -> None:
    job = bench.uploading(2)
    bench.dispatch(job, 0)
    (moment,) = bench.run("SELECT clock_timestamp() AS now")
    bench.dispatch(job, 1)
    with bench.db.connection() as tx:
        assert [row["number"] for row in transitions.redispatch(tx, moment["now"])] == [0]
        assert [row["number"] for row in transitions.redispatch(tx, moment["now"])] == []
        assert sorted(row["number"] for row in transitions.redispatch(tx)) == [0, 1]


@pytest.mark.parametrize("end", ["pause", "cancel", "quarantine"])
def test_a_slice_marked_while_its_job_was_held_back_is_taken_back(bench: Bench, end: str) -> None:
    """The dispatcher marks slices without a lock on their job: a cancel may commit between its look and its mark."""
    job = bench.uploading(2)
    acts: dict[str, Callable[[Tx], object]] = {
        "pause": lambda tx: transitions.pause(tx, job, "o", "why"),
        "cancel": lambda tx: transitions.cancel(tx, job, "o"),
        "quarantine": lambda tx: transitions.quarantine(tx, job, 1, ERROR),
    }
    with bench.db.connection() as tx:
        acts[end](tx)
        bench.run("UPDATE slice SET state = 'dispatched', token = token + 1, dispatched_at = now() WHERE number = 1")
        assert transitions.redispatch(tx) == []
        transitions.promote_due(tx)
    assert bench.states(job) == ["pending", "pending"]
