"""Which steps and slices are due: by lane, by priority and age, within windows; the held-back ones are skipped."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.database import UNAVAILABLE
from worker.jobs import aborts, control, due, transitions
from worker.jobs.leases import Deferral
from worker.jobs.links import Link
from worker.jobs.states import STEPS, JobState, SliceState, Step

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase


def steps(db: JobsDatabase, *, per_lane: int = 100, blocked: tuple[str, ...] = ()) -> list[UUID]:
    with db.connection() as tx:
        return [row.job_id for row in due.due_steps(tx, per_lane=per_lane, blocked=blocked, whole_bytes=0)]


def slices(
    db: JobsDatabase, *, per_lane: int = 100, window: int = 100, blocked: tuple[str, ...] = ()
) -> list[tuple[UUID, int]]:
    with db.connection() as tx:
        rows = due.due_slices(tx, per_lane=per_lane, window=window, blocked=blocked)
    return [(row.job_id, row.number) for row in rows]


# --- steps ---


def test_steps_come_by_priority_then_age(db: JobsDatabase) -> None:
    late, urgent, later = (db.enqueue(priority=priority) for priority in (5, 1, 5))
    assert steps(db) == [urgent, late, later]
    assert steps(db, per_lane=2) == [urgent, late]


def test_every_lane_lists_its_own_first_steps(db: JobsDatabase) -> None:
    """Every lane, a pair of store and tenant, is listed, however many jobs the other lanes have."""
    lanes = {(f"s{store}", f"t{tenant}") for store in range(4) for tenant in range(5)}
    jobs = {lane: [db.enqueue(store=lane[0], tenant=lane[1]) for _ in range(3)] for lane in lanes}
    with db.connection() as tx:
        rows = due.due_steps(tx, per_lane=2, blocked=[], whole_bytes=0)
    assert {(row.store, row.tenant) for row in rows} == lanes
    for lane, made in jobs.items():
        assert [row.job_id for row in rows if (row.store, row.tenant) == lane] == made[:2]


def test_only_pending_steps_that_may_begin_are_due(db: JobsDatabase) -> None:
    due, dispatched, waiting, paused = (db.enqueue() for _ in range(4))
    db.dispatch(dispatched)
    db.run("UPDATE job SET not_before = now() + interval '1 hour' WHERE id = %s", waiting)
    finishing = db.finishing(1)
    with db.connection() as tx:
        control.pause(tx, [paused], "o", "why")
        control.pause(tx, [finishing], "o", "why")
    assert steps(db) == [due, finishing]  # a job with nothing left to send still finishes


def test_a_blocked_store_is_passed_by(db: JobsDatabase) -> None:
    here, there = db.enqueue(store="a"), db.enqueue(store="b")
    assert steps(db, blocked=("a",)) == [there]
    assert steps(db, blocked=("a", "b")) == []
    assert steps(db) == [here, there]


# --- slices ---


def test_slices_come_by_priority_then_age_then_number(db: JobsDatabase) -> None:
    late, urgent = db.uploading(2, priority=5), db.uploading(2, priority=1)
    assert slices(db) == [(urgent, 0), (urgent, 1), (late, 0), (late, 1)]
    assert slices(db, per_lane=3) == [(urgent, 0), (urgent, 1), (late, 0)]


def test_the_window_counts_what_is_in_flight(db: JobsDatabase) -> None:
    job, other = db.uploading(6), db.uploading(6)
    assert slices(db, window=2) == [(job, 0), (job, 1), (other, 0), (other, 1)]
    (sending,) = db.take(job, 0)
    db.dispatch(job, 4)
    assert slices(db, window=2) == [(other, 0), (other, 1)]
    assert slices(db, window=3)[0] == (job, 1)
    db.checkpoint(sending)
    assert slices(db, window=2)[0] == (job, 1)


def test_ordered_slices_go_one_after_the_other(db: JobsDatabase) -> None:
    job = db.uploading(3, ordered=True)
    assert slices(db) == [(job, 0)]
    (claim,) = db.take(job, 0)
    assert slices(db) == []
    with db.connection() as tx:
        transitions.release(tx, claim, Deferral(timedelta(hours=1), UNAVAILABLE))
    assert slices(db) == []  # the next slice in order waits, so all wait
    db.run("UPDATE slice SET not_before = NULL")
    db.checkpoint(*db.take(job, 0))
    assert slices(db) == [(job, 1)]


def test_slices_that_wait_or_are_done_are_not_due(db: JobsDatabase) -> None:
    job = db.uploading(4, held=[0])
    (claim,) = db.take(job, 1)
    with db.connection() as tx:
        transitions.release(tx, claim, Deferral(timedelta(hours=1), UNAVAILABLE))
    assert slices(db) == [(job, 2), (job, 3)]


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.UPLOADING])
def test_only_uploading_jobs_have_due_slices(db: JobsDatabase, state: JobState) -> None:
    job = db.enqueue()
    db.force(job, state, STEPS[state][0], slices=[SliceState.PENDING] * 2)
    assert slices(db) == []


def test_paused_jobs_and_blocked_stores_are_passed_by(db: JobsDatabase) -> None:
    paused, blocked, due = db.uploading(1), db.uploading(1, store="b"), db.uploading(1, store="c")
    with db.connection() as tx:
        control.pause(tx, [paused], "o", "why")
    assert slices(db, blocked=("b",)) == [(due, 0)]
    assert slices(db) == [(blocked, 0), (due, 0)]


def test_every_lane_lists_its_own_first_slices(db: JobsDatabase) -> None:
    jobs = {
        (store, tenant): db.uploading(3, store=store, tenant=tenant) for store in ("a", "b") for tenant in ("x", "y")
    }
    assert sorted(slices(db, per_lane=2)) == sorted((job, number) for job in jobs.values() for number in (0, 1))


# --- after a wait ---


def test_what_waited_until_now_is_due(db: JobsDatabase) -> None:
    now, later = db.enqueue(), db.enqueue()
    job = db.uploading(2)
    claims = db.take(job, 0, 1)
    with db.connection() as tx:
        transitions.release(tx, claims[0], Deferral(timedelta(0), UNAVAILABLE))
        transitions.release(tx, claims[1], Deferral(timedelta(hours=1), UNAVAILABLE))
        db.run("UPDATE job SET not_before = now() WHERE id = %s", now)
        db.run("UPDATE job SET not_before = now() + interval '90 s' WHERE id = %s", later)
        assert (steps(db), slices(db)) == ([], [])
        assert transitions.promote_due(tx)
        assert (steps(db), slices(db)) == ([now], [(job, 0)])
        assert not transitions.promote_due(tx)
        assert 80 < due.snapshot(tx, whole_bytes=0).next_due_s <= 90  # type: ignore[operator]


def test_the_snapshot_counts_what_is_in_flight_by_lane(db: JobsDatabase) -> None:
    db.start_worker(slots=3)
    db.end_worker(db.start_worker(slots=50), how="stopped")
    job, other = db.uploading(4), db.enqueue(tenant="u", store="b")
    db.take(job, 0)
    db.dispatch(job, 1, 2)
    db.take(other)
    db.dispatch(db.enqueue())
    with db.connection() as tx:
        seen = due.snapshot(tx, whole_bytes=0)
    assert seen.slots == 4 + 3
    assert seen.in_flight == {("main", "t"): (4, 4), ("b", "u"): (1, 1)}
    assert seen.last_ended is not None
    assert seen.next_due_s is None


def test_what_carries_content_is_slices_and_inits_that_may_send_a_small_file(db: JobsDatabase) -> None:
    """An init of a larger file only opens a session, and a finish carries no content."""
    small, large, unknown, ending = db.enqueue(), db.enqueue(), db.enqueue(), db.finishing()
    db.run("UPDATE job SET size_bytes = 100 WHERE id = %s", small)
    db.run("UPDATE job SET size_bytes = 101 WHERE id = %s", large)
    with db.connection() as tx:
        rows = due.due_steps(tx, per_lane=9, blocked=[], whole_bytes=100)
        assert {row.job_id: row.carries for row in rows} == {
            small: True,
            large: False,
            unknown: True,
            ending: False,
        }
        for job in (small, large, unknown, ending):
            db.dispatch(job)
        assert due.snapshot(tx, whole_bytes=100).in_flight == {("main", "t"): (4, 2)}


def test_a_link_is_known_for_ten_minutes(db: JobsDatabase) -> None:
    db.know_link("main", goodput=1e6, answer_s=0.5)
    db.know_link("old")
    db.run("UPDATE store_link SET measured_at = now() - interval '601 seconds' WHERE store = 'old'")
    with db.connection() as tx:
        assert due.snapshot(tx, whole_bytes=0).links == {"main": Link(1e6, 1e6, 0.5)}


# --- aborts behind a breaker ---


def test_of_a_blocked_stores_aborts_those_are_due_that_it_need_not_be_usable_for(db: JobsDatabase) -> None:
    def cancelled(store: str = "b", step: Step = Step.PENDING) -> UUID:
        job = db.enqueue(store=store)
        db.force(job, JobState.CANCELLING, step)
        return job

    waits, sessionless, old, usable, running = (
        *(cancelled(), cancelled(), cancelled(), cancelled("c"), cancelled(step=Step.RUNNING)),
    )
    db.run("UPDATE job SET session = NULL WHERE id = ANY(%s)", [sessionless, usable, running])
    db.run("UPDATE job SET updated_at = now() - interval '25 hours' WHERE id = %s", old)

    def due(*known: str, blocked: tuple[str, ...] = ("b",)) -> list[UUID]:
        with db.connection() as tx:
            return [row.job_id for row in aborts.due_aborts(tx, blocked=blocked, known=known, most=9)]

    assert due("b", "c") == [sessionless, old]
    assert due("c") == [
        waits,
        sessionless,
        old,
    ]  # no probe would ever close the breaker of a store without a profile
    assert due("b", "c", blocked=()) == []
