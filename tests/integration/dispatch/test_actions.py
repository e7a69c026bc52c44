"""What operators do, with a real leader: it obeys with its next tick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.dispatch.harness import eventually
from tests.integration.jobs.database import AT_ONCE, LEASE, SOON, UNAVAILABLE, abandon_job, cancel_job
from tests.integration.jobs.test_holds import ACTING, ALL, QUEUE, STORE
from worker.errors import StaleClaim
from worker.jobs import breakers, control, holds, transitions
from worker.jobs.task_names import TaskName

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.dispatch.harness import DispatcherHarness
    from worker.jobs.hold_rows import HoldKind


@pytest.fixture(autouse=True)
def _slots(harness: DispatcherHarness) -> None:
    """One live worker, which stays alive during the test."""
    harness.db.worker = harness.db.start_worker(slots=20)
    harness.db.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")


def test_an_abandoned_job_ends_without_a_message(harness: DispatcherHarness) -> None:
    job, other = harness.db.uploading(1), harness.db.uploading(1)
    (claim,) = harness.db.take(other, 0)
    with harness.db.connection() as tx:
        abandon_job(tx, job)
        abandon_job(tx, other)
    harness.leading()
    eventually(lambda: harness.db.row(job)["state"] == "cancelled", "it does not end")
    harness.a_few_ticks()
    assert harness.db.row(other)["state"] == "cancelling"  # a worker is at its slice
    harness.db.checkpoint(claim)
    eventually(lambda: harness.db.row(other)["state"] == "cancelled", "it does not end")
    assert TaskName.ABORT not in {message.name for message in harness.messages()}


def test_a_started_job_is_dispatched_at_once(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(1)
    (claim,) = harness.db.take(job, 0)
    with harness.db.connection() as tx:
        transitions.release(tx, claim, SOON)
    harness.leading()
    harness.a_few_ticks()
    assert (job, 0) not in harness.units()
    with harness.db.transaction() as tx:
        control.start_now(tx, [job], "o")
    eventually(lambda: (job, 0) in harness.units(), "it is not dispatched")


def test_a_paused_job_is_not_dispatched_until_it_is_resumed(harness: DispatcherHarness) -> None:
    job, queued = harness.db.uploading(2), harness.db.enqueue()
    with harness.db.transaction() as tx:
        control.pause(tx, [job, queued], "o", None)
    harness.leading()
    harness.a_few_ticks()
    assert not {job, queued} & {unit[0] for unit in harness.units()}
    with harness.db.transaction() as tx:
        control.resume(tx, [job, queued], "o")
    eventually(lambda: {(job, 0), (queued, None)} <= set(harness.units()), "they are not dispatched")


def test_a_pause_takes_back_what_no_worker_has_claimed(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(1)
    harness.leading()
    message = harness.take()
    with harness.db.transaction() as tx:
        control.pause(tx, [job], "o", "why")
    with harness.db.connection() as tx, pytest.raises(StaleClaim):
        transitions.claim_slice(tx, message.claim(harness.db.worker), low_speed=1, slack=LEASE)


def everything_due(harness: DispatcherHarness) -> dict[str, UUID]:
    """Return a job whose init is due, and one each with a slice, a finish and, once it is cancelled, an abort."""
    return {
        "init": harness.db.enqueue(), "slice": harness.db.uploading(1), "finish": harness.db.finishing(),
        "abort": harness.db.uploading(1),
    }  # fmt: skip


def hold_or_release(harness: DispatcherHarness, hold: tuple[HoldKind, str], *, release: bool = False) -> None:
    with harness.db.transaction() as tx:
        (holds.resume if release else holds.pause)(tx, *hold, ACTING)


@ALL
@pytest.mark.parametrize("when", ["before it leads", "while it leads"])
def test_of_what_is_held_nothing_is_dispatched_until_it_is_released(
    harness: DispatcherHarness, hold: tuple[HoldKind, str], when: str
) -> None:
    jobs = everything_due(harness)
    if when == "while it leads":  # all of it becomes due under the hold
        harness.db.run("UPDATE job SET not_before = now() + interval '1 hour' WHERE step = 'pending'")
        harness.db.run("UPDATE slice SET not_before = now() + interval '1 hour' WHERE state = 'pending'")
        harness.leading()
    hold_or_release(harness, hold)
    with harness.db.connection() as tx:
        cancel_job(tx, jobs["abort"])
    if when == "before it leads":
        harness.leading()
    harness.db.run("UPDATE job SET not_before = now() WHERE not_before IS NOT NULL")
    harness.db.run("UPDATE slice SET not_before = now() WHERE not_before IS NOT NULL")
    free = harness.db.enqueue(tenant="other", store="other")
    if hold == QUEUE:
        eventually(lambda: harness.db.row(jobs["abort"])["step"] == "pending", "the leader makes no round")
        for _ in range(3):
            marker = harness.db.enqueue()
            harness.db.run("UPDATE job SET not_before = now() WHERE id = %s", marker)
            harness.db.run("NOTIFY sliceway_work")
            eventually(lambda m=marker: harness.db.row(m)["not_before"] is None, "no round")  # type: ignore[misc]
        assert harness.messages() == []
        assert harness.db.row(free)["step"] == "pending"
    else:
        eventually(lambda: free in {job for job, _ in harness.units()}, "what is free is not dispatched")
        harness.a_few_ticks()
    assert not set(jobs.values()) & {job for job, _ in harness.units()}
    hold_or_release(harness, hold, release=True)
    eventually(lambda: set(jobs.values()) <= {job for job, _ in harness.units()}, "it does not go on")


def test_what_is_in_flight_ends_under_a_hold(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(2)
    harness.leading(window=2)
    message = harness.take()
    with harness.db.connection() as tx:
        transitions.claim_slice(tx, message.claim(harness.db.worker), low_speed=1, slack=LEASE)
    harness.wait_for(1)
    hold_or_release(harness, STORE)
    with harness.db.connection() as tx:
        transitions.claim_slice(tx, harness.take().claim(harness.db.worker), low_speed=1, slack=LEASE)
    harness.db.checkpoint(*(harness.db.claim_of(job, number) for number in (0, 1)))
    assert harness.db.row(job)["state"] == "finishing"
    harness.a_few_ticks()
    assert (job, None) not in harness.units()
    hold_or_release(harness, STORE, release=True)
    eventually(lambda: (job, None) in harness.units(), "its finish is not dispatched")


def test_what_comes_back_under_a_hold_waits(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(1)
    (claim,) = harness.db.take(job, 0)
    hold_or_release(harness, STORE)
    harness.leading()
    with harness.db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    harness.a_few_ticks()
    assert (job, 0) not in harness.units()


def test_a_held_store_gets_no_probe(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(1)
    with harness.db.transaction() as tx:
        breakers.open_breaker(tx, "main", UNAVAILABLE, -1.0)
    hold_or_release(harness, STORE)
    harness.leading()
    harness.a_few_ticks()
    assert job not in {each for each, _ in harness.units()}
    hold_or_release(harness, STORE, release=True)
    eventually(lambda: (job, 0) in harness.units(), "no probe goes out")
