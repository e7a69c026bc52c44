"""What is due, out of everything that waits: by lane, by urgency and age, within windows, past what is held back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from worker.jobs import aborts, due, transitions
from worker.jobs.leases import Deferral
from worker.jobs.links import Link
from worker.jobs.states import JobState, SliceState, Step

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.bench import Bench

ERROR = {"code": "store_unavailable", "message": "no", "advice": "wait"}


def steps(bench: Bench, *, per_lane: int = 100, blocked: tuple[str, ...] = ()) -> list[UUID]:
    with bench.db.connection() as tx:
        return [row["job_id"] for row in due.due_steps(tx, per_lane=per_lane, blocked=blocked, whole_bytes=0)]


def slices(
    bench: Bench, *, per_lane: int = 100, window: int = 100, blocked: tuple[str, ...] = ()
) -> list[tuple[UUID, int]]:
    with bench.db.connection() as tx:
        rows = due.due_slices(tx, per_lane=per_lane, window=window, blocked=blocked)
    return [(row["job_id"], row["number"]) for row in rows]


# --- steps ---


def test_steps_come_by_priority_then_age(bench: Bench) -> None:
    late, urgent, later = (bench.enqueue(priority=priority) for priority in (5, 1, 5))
    assert steps(bench) == [urgent, late, later]
    assert steps(bench, per_lane=2) == [urgent, late]


def test_every_lane_shows_its_own_first_steps(bench: Bench) -> None:
    """Many lanes: every pair of store and tenant is seen, however many jobs the others have."""
    lanes = {(f"s{store}", f"t{tenant}") for store in range(4) for tenant in range(5)}
    jobs = {lane: [bench.enqueue(store=lane[0], tenant=lane[1]) for _ in range(3)] for lane in lanes}
    with bench.db.connection() as tx:
        rows = due.due_steps(tx, per_lane=2, blocked=[], whole_bytes=0)
    assert {(row["store"], row["tenant"]) for row in rows} == lanes
    for lane, made in jobs.items():
        assert [row["job_id"] for row in rows if (row["store"], row["tenant"]) == lane] == made[:2]


def test_only_pending_steps_that_may_begin_are_due(bench: Bench) -> None:
    due, dispatched, waiting, paused = (bench.enqueue() for _ in range(4))
    bench.dispatch(dispatched)
    bench.run("UPDATE job SET not_before = now() + interval '1 hour' WHERE id = %s", waiting)
    finishing = bench.finishing(1)
    with bench.db.connection() as tx:
        transitions.pause(tx, paused, "o", "why")
        transitions.pause(tx, finishing, "o", "why")
    assert steps(bench) == [due, finishing]  # what has nothing left to send still finishes


def test_a_blocked_store_is_passed_by(bench: Bench) -> None:
    here, there = bench.enqueue(store="a"), bench.enqueue(store="b")
    assert steps(bench, blocked=("a",)) == [there]
    assert steps(bench, blocked=("a", "b")) == []
    assert steps(bench) == [here, there]


# --- slices ---


def test_slices_come_by_priority_then_age_then_number(bench: Bench) -> None:
    late, urgent = bench.uploading(2, priority=5), bench.uploading(2, priority=1)
    assert slices(bench) == [(urgent, 0), (urgent, 1), (late, 0), (late, 1)]
    assert slices(bench, per_lane=3) == [(urgent, 0), (urgent, 1), (late, 0)]


def test_the_window_counts_what_is_in_flight(bench: Bench) -> None:
    job, other = bench.uploading(6), bench.uploading(6)
    assert slices(bench, window=2) == [(job, 0), (job, 1), (other, 0), (other, 1)]
    (sending,) = bench.take(job, 0)
    bench.dispatch(job, 4)
    assert slices(bench, window=2) == [(other, 0), (other, 1)]
    assert slices(bench, window=3)[0] == (job, 1)
    bench.checkpoint(sending)
    assert slices(bench, window=2)[0] == (job, 1)


def test_ordered_slices_go_one_after_the_other(bench: Bench) -> None:
    job = bench.uploading(3, ordered=True)
    assert slices(bench) == [(job, 0)]
    (claim,) = bench.take(job, 0)
    assert slices(bench) == []
    with bench.db.connection() as tx:
        transitions.release(tx, claim, Deferral(timedelta(hours=1), ERROR))
    assert slices(bench) == []  # the next one in order waits, so all wait
    bench.run("UPDATE slice SET not_before = NULL")
    bench.checkpoint(*bench.take(job, 0))
    assert slices(bench) == [(job, 1)]


def test_slices_that_wait_or_are_done_are_not_due(bench: Bench) -> None:
    job = bench.uploading(4, held=[0])
    (claim,) = bench.take(job, 1)
    with bench.db.connection() as tx:
        transitions.release(tx, claim, Deferral(timedelta(hours=1), ERROR))
    assert slices(bench) == [(job, 2), (job, 3)]


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.UPLOADING])
def test_only_uploading_jobs_have_due_slices(bench: Bench, state: JobState) -> None:
    job = bench.enqueue()
    bench.force(job, state, Step.IDLE, slices=[SliceState.PENDING] * 2)
    assert slices(bench) == []


def test_paused_jobs_and_blocked_stores_are_passed_by(bench: Bench) -> None:
    paused, blocked, due = bench.uploading(1), bench.uploading(1, store="b"), bench.uploading(1, store="c")
    with bench.db.connection() as tx:
        transitions.pause(tx, paused, "o", "why")
    assert slices(bench, blocked=("b",)) == [(due, 0)]
    assert slices(bench) == [(blocked, 0), (due, 0)]


def test_every_lane_shows_its_own_first_slices(bench: Bench) -> None:
    jobs = {
        (store, tenant): bench.uploading(3, store=store, tenant=tenant) for store in ("a", "b") for tenant in ("x", "y")
    }
    assert sorted(slices(bench, per_lane=2)) == sorted((job, number) for job in jobs.values() for number in (0, 1))


# --- what waited ---


def test_what_waited_until_now_is_due(bench: Bench) -> None:
    now, later = bench.enqueue(), bench.enqueue()
    job = bench.uploading(2)
    claims = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.release(tx, claims[0], Deferral(timedelta(0), ERROR))
        transitions.release(tx, claims[1], Deferral(timedelta(hours=1), ERROR))
        bench.run("UPDATE job SET not_before = now() WHERE id = %s", now)
        bench.run("UPDATE job SET not_before = now() + interval '90 s' WHERE id = %s", later)
        assert (steps(bench), slices(bench)) == ([], [])
        assert transitions.promote_due(tx)
        assert (steps(bench), slices(bench)) == ([now], [(job, 0)])
        assert not transitions.promote_due(tx)
        assert 80 < due.snapshot(tx, whole_bytes=0).next_due_s <= 90  # type: ignore[operator]


def test_the_survey_counts_what_is_in_flight_by_lane(bench: Bench) -> None:
    bench.start_worker(slots=3)
    bench.end_worker(bench.start_worker(slots=50), how="stopped")
    job, other = bench.uploading(4), bench.enqueue(tenant="u", store="b")
    bench.take(job, 0)
    bench.dispatch(job, 1, 2)
    bench.take(other)
    bench.dispatch(bench.enqueue())
    with bench.db.connection() as tx:
        seen = due.snapshot(tx, whole_bytes=0)
    assert seen.slots == 4 + 3
    assert seen.in_flight == {("main", "t"): (4, 4), ("b", "u"): (1, 1)}
    assert seen.last_ended is not None
    assert seen.next_due_s is None


def test_what_carries_content_is_slices_and_inits_that_may_send_a_small_file(bench: Bench) -> None:
    """An init of a larger file asks for a session only, and the end of an upload carries nothing."""
    small, large, unknown, ending = bench.enqueue(), bench.enqueue(), bench.enqueue(), bench.finishing()
    bench.run("UPDATE job SET size_bytes = 100 WHERE id = %s", small)
    bench.run("UPDATE job SET size_bytes = 101 WHERE id = %s", large)
    with bench.db.connection() as tx:
        rows = due.due_steps(tx, per_lane=9, blocked=[], whole_bytes=100)
        assert {row["job_id"]: row["carries"] for row in rows} == {
            small: True,
            large: False,
            unknown: True,
            ending: False,
        }
        for job in (small, large, unknown, ending):
            bench.dispatch(job)
        assert due.snapshot(tx, whole_bytes=100).in_flight == {("main", "t"): (4, 2)}


def test_a_link_is_known_for_ten_minutes(bench: Bench) -> None:
    bench.know_link("main", goodput=1e6, answer_s=0.5)
    bench.know_link("old")
    bench.run("UPDATE store_link SET measured_at = now() - interval '601 seconds' WHERE store = 'old'")
    with bench.db.connection() as tx:
        assert due.snapshot(tx, whole_bytes=0).links == {"main": Link(1e6, 1e6, 0.5)}


# --- aborts behind a breaker ---


def test_of_a_blocked_stores_aborts_those_are_due_that_it_need_not_be_usable_for(bench: Bench) -> None:
    def cancelled(store: str = "b", step: Step = Step.PENDING) -> UUID:
        job = bench.enqueue(store=store)
        bench.force(job, JobState.CANCELLING, step)
        return job

    waits, sessionless, old, usable, running = (
        *(cancelled(), cancelled(), cancelled(), cancelled("c"), cancelled(step=Step.RUNNING)),
    )
    bench.run("UPDATE job SET session = NULL WHERE id = ANY(%s)", [sessionless, usable, running])
    bench.run("UPDATE job SET updated_at = now() - interval '25 hours' WHERE id = %s", old)

    def due(*known: str, blocked: tuple[str, ...] = ("b",)) -> list[UUID]:
        with bench.db.connection() as tx:
            return [row["job_id"] for row in aborts.due_aborts(tx, blocked=blocked, known=known, most=9)]

    assert due("b", "c") == [sessionless, old]
    assert due("c") == [
        waits,
        sessionless,
        old,
    ]  # nothing would ever close the breaker of a store that has left the file
    assert due("b", "c", blocked=()) == []
