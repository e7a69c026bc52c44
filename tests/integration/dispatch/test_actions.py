"""What operators do, with a real leader: it obeys with its next tick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.dispatch.harness import eventually
from tests.integration.jobs.database import LEASE, SOON, abandon_job
from worker.errors import StaleClaim
from worker.jobs import control, transitions
from worker.jobs.task_names import TaskName

if TYPE_CHECKING:
    from tests.integration.dispatch.harness import DispatcherHarness


@pytest.fixture(autouse=True)
def _slots(harness: DispatcherHarness) -> None:
    """One live worker, which stays alive during the test."""
    harness.db.worker = harness.db.start_worker(slots=3)
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
