"""Scenarios with an intervention: an operator cancels, retries or revokes, a process is stopped or killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery import Celery

from tests.support.job import JobSpec
from tests.support.store import SLICE_BYTES
from worker.ids import task_id
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from tests.faults.crash_harness import CrashHarness
    from tests.support.job import Job

MIB = 1024 * 1024
SIZE = 3 * SLICE_BYTES + 4321


def cancelled_on_its_way(harness: CrashHarness) -> None:
    """An operator cancels while a slice is being sent."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    job.act("cancel")
    release()
    job.reaches("cancelled")
    assert key not in harness.store.unfinished()


def cancelled_while_it_waits(harness: CrashHarness) -> None:
    """An operator cancels while the job waits for a volume that is not mounted."""
    harness.unmount()
    key = harness.fresh_key()
    job = harness.submit(JobSpec(key, key, root="volume"), b"")
    harness.until(lambda: job.row["error"], "the missing volume")
    job.act("cancel")
    job.reaches("cancelled")


def cancelled_without_a_session(harness: CrashHarness) -> None:
    """An operator cancels after the store has begun a session and its answer was lost."""
    key = harness.fresh_key()
    rule = harness.store.control.add_rule("cut", op="init", path=key, when="after")
    job = harness.enqueue(SIZE, key)
    harness.until(lambda: job.row["error"], "the lost answer")
    job.act("cancel")
    job.reaches("cancelled")
    harness.store.control.remove_rule(rule)


def acted_upon(harness: CrashHarness) -> None:
    """An operator pauses a job while a slice is being sent, changes its priority, starts and resumes it."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    for action, body in (("pause", None), ("priority", {"priority": 1}), ("start", None), ("resume", None)):
        job.act(action, body)
    release()
    job.reaches("succeeded")


def acted_upon_in_bulk(harness: CrashHarness) -> None:
    """An operator pauses all jobs of a label while one sends, then resumes them, and stops an action that is done."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, count=1)
    job = harness.enqueue(SIZE, key, labels={"bulk": key})
    harness.held("data", key)
    for action in ("pause", "resume"):
        body = {"action": action, "filter": f"label.bulk={key}", "confirm": 1}
        made = harness.api.post("/v1/jobs/actions", json=body).raise_for_status().json()["id"]
        query = (
            "SELECT id FROM bulk_action WHERE state = 'running'"  # all: a request that was cut may have made another
        )
        harness.until(lambda: not harness.sql(query), f"the end of {action}")  # noqa: B023 - at once
        assert bool(job.row["paused_at"]) == (action == "pause")
        harness.api.post(f"/v1/jobs/actions/{made}/stop").raise_for_status()
    causes = [event["cause"]["bulk_action"] for event in job.events if "bulk_action" in (event["cause"] or {})]
    assert len(causes) == 2, causes
    release()
    job.reaches("succeeded")


def held(harness: CrashHarness) -> None:
    """An operator holds the store while a slice is being sent, and the queue beside it; then releases both."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    for what in (f"stores/{job.row['store']}", f"tenants/{job.row['tenant']}", "queue"):
        harness.api.post(f"/v1/{what}/pause", json={"reason": "a fault"}).raise_for_status()
    release()
    for what in ("queue", f"tenants/{job.row['tenant']}", f"stores/{job.row['store']}"):
        harness.api.post(f"/v1/{what}/resume").raise_for_status()
    job.reaches("succeeded")


def limited(harness: CrashHarness) -> None:
    """An operator limits the store and the tenant while a slice is being sent, then removes the limits."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    for most in (1, None):
        for what in (f"stores/{job.row['store']}", f"tenants/{job.row['tenant']}"):
            body = {"max_in_flight": most, "reason": "a fault"}
            harness.api.put(f"/v1/limits/{what}", json=body).raise_for_status()
    release()
    job.reaches("succeeded")


def abandoned(harness: CrashHarness) -> None:
    """An operator abandons a job while a slice is being sent."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    job.act("abandon")
    release()
    job.reaches("cancelled")


def cancelled_too_late(harness: CrashHarness) -> None:
    """An operator cancels after the object is complete, before the answer arrives."""
    key = harness.fresh_key()
    release = harness.store.hold("finish", key, when="after", count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("finish", key)
    job.act("cancel")
    _kill(harness, job.row["worker"])
    job.reaches("succeeded")
    release()


def _kill(harness: CrashHarness, identity: object) -> None:
    worker = harness.worker_of(identity)
    if worker is not None and worker.alive:
        worker.kill()


def retried(harness: CrashHarness) -> None:
    """A slice is refused; after the retry the job continues."""
    job = harness.enqueue(SIZE, _refusing(harness, SLICE_BYTES))
    job.fails()
    _retry(job)
    job.succeeds()
    assert len(job.asked("init")) == 1


def retried_with_another_file(harness: CrashHarness) -> None:
    """A slice is refused; the file changes before the retry."""
    job = harness.enqueue(SIZE, _refusing(harness, SLICE_BYTES))
    job.fails()
    _until_none_in_flight(harness, job)
    job.content = bytes(SIZE)
    job.path.write_bytes(job.content)
    _retry(job)
    job.succeeds()
    assert harness.store.object_at(job.key) == job.content


def _retry(job: Job) -> None:
    """Retry a job; a request that is repeated after a lost answer may find the job done."""
    answer = job.site.api.post(f"/v1/jobs/{job.id}/retry")
    assert answer.is_success or (answer.json()["code"] == "not_retryable" and job.state == "succeeded"), answer.text


def _refusing(harness: CrashHarness, offset: int) -> str:
    key = harness.fresh_key()
    harness.store.control.add_rule("error", op="data", path=key, offset=offset, status=400, code=-5999, count=1)
    return key


def _until_none_in_flight(harness: CrashHarness, job: Job) -> None:
    harness.until(lambda: not any(row["state"] == "sending" for row in job.slices), "the slices in flight")


def continued_by_another_job(harness: CrashHarness) -> None:
    """Another job has left half of the same file at the store."""
    key = _refusing(harness, 2 * MIB)
    first = harness.enqueue(3 * MIB, key, verify="file")
    first.fails()
    _until_none_in_flight(harness, first)
    harness.enqueue(3 * MIB, key, content=first.content, verify="file").succeeds()


def revoked_on_its_way(harness: CrashHarness) -> None:
    """An operator revokes a slice that waits for the store's answer."""
    _revoke_during(harness, "data", offset=0)


def revoked_before(harness: CrashHarness) -> None:
    """An operator revokes a slice before a worker claims it."""
    _revoke_during(harness, "init")


def _revoke_during(harness: CrashHarness, op: str, **conditions: Any) -> None:
    key = harness.fresh_key()
    release = harness.store.hold(op, key, count=1, **conditions)
    job = harness.enqueue(SIZE, key)
    harness.held(op, key)
    _revoke(harness, job, "0")
    release()
    # a worker that has started since does not know the revoke: then the job ends without a pause
    harness.until(lambda: job.row["paused_at"] or job.state in FINAL, "a pause")
    if job.row["paused_at"]:
        _retry(job)
    job.succeeds()


def _revoke(harness: CrashHarness, job: Job, part: str) -> None:
    """Revoke a task, until every worker has confirmed it."""
    row = job.row
    task = {"task_id": task_id(UUID(job.id), part, row["epoch"], row["run"]), "terminate": False}
    with Celery("operator", broker=harness.broker_url, set_as_current=False) as celery:

        def confirmed() -> bool:
            workers = len(harness.live_workers())
            answers = celery.control.broadcast("revoke", arguments=task, reply=True, limit=workers, timeout=1.0)
            return len(answers or ()) == workers

        harness.until(confirmed, "the revoke at all workers")


def killed(harness: CrashHarness) -> None:
    """A worker is killed, and another takes over."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, offset=0, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    _kill(harness, job.slices[0]["worker"])
    harness.live_workers()
    job.succeeds()
    release()


def quarantined(harness: CrashHarness) -> None:
    """A slice has killed as many workers as it may; an operator retries the job."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, offset=0, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    harness.sql("UPDATE slice SET deaths = 3 WHERE job_id = %(id)s AND number = 0", id=job.id)
    _kill(harness, job.slices[0]["worker"])
    job.reaches("failed", "succeeded")  # a crash after the worker's death may leave the slice another try
    release()
    if job.state == "failed":
        _retry(job)
        job.succeeds()


def handed_back(harness: CrashHarness) -> None:
    """The leader is stopped, as by a deploy, with slices in flight."""
    harness.store.control.change(rate_bytes_per_s=6 * MIB)
    job = harness.enqueue(8 * SLICE_BYTES)
    harness.until(lambda: len(job.asked("data")) > 2, "slices in flight")
    [row] = harness.sql("SELECT holder FROM leadership")
    leader = harness.worker_of(row["holder"])
    if leader is not None:
        leader.terminate()
        harness.until(lambda: not leader.alive, "its end")
    harness.store.control.change(rate_bytes_per_s=None)
    job.succeeds()


def stopped_in_a_request(harness: CrashHarness) -> None:
    """A worker is stopped while the store does not answer it."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, offset=0, count=1)
    job = harness.enqueue(SIZE, key)
    harness.held("data", key)
    holder = harness.worker_of(job.slices[0]["worker"])
    if holder is not None:
        holder.terminate()
    job.succeeds()
    release()


def emptied(harness: CrashHarness) -> None:
    """The broker loses what it holds."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key)
    job = harness.enqueue(24 * SLICE_BYTES, key)
    harness.until(lambda: sum(row["state"] == "dispatched" for row in job.slices) > 1, "slices in the broker")
    with harness.broker() as broker:
        broker.flushdb()
    release()
    job.succeeds()
