"""Stories in which somebody steps in: an operator cancels, retries or revokes, a process is stopped or dies."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from celery import Celery

from tests.support.job import JobSpec
from tests.support.store import SLICE_BYTES
from worker.ids import task_id
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from tests.faults.stage import Stage
    from tests.support.job import Job

MIB = 1024 * 1024
SIZE = 3 * SLICE_BYTES + 4321


def cancelled_on_its_way(stage: Stage) -> None:
    """A slice is being sent."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("data", key)
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    assert key not in stage.store.unfinished()


def cancelled_while_it_waits(stage: Stage) -> None:
    """Its volume is not mounted."""
    job = _waiting(stage)
    job.act("cancel")
    job.reaches("cancelled")


def _waiting(stage: Stage) -> Job:
    stage.unmount()
    key = stage.fresh_key()
    job = stage.submit(JobSpec(key, key, root="volume"), b"")
    stage.until(lambda: job.row["error"], "the volume missed")
    return job


def cancelled_without_a_session(stage: Stage) -> None:
    """The store has begun a session and never said so."""
    key = stage.fresh_key()
    rule = stage.store.control.add_rule("cut", op="init", path=key, when="after")
    job = stage.enqueue(SIZE, key)
    stage.until(lambda: job.row["error"], "the answer missed")
    job.act("cancel")
    job.reaches("cancelled")
    stage.store.control.remove_rule(rule)


def cancelled_too_late(stage: Stage) -> None:
    """The object is complete, and nobody has heard so."""
    key = stage.fresh_key()
    let_go = stage.store.hold("finish", key, when="after", count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("finish", key)
    job.act("cancel")
    _kill(stage, job.row["worker"])
    job.reaches("succeeded")
    let_go()


def _kill(stage: Stage, identity: object) -> None:
    worker = stage.worker_of(identity)
    if worker is not None and worker.alive:
        worker.kill()


def retried(stage: Stage) -> None:
    """A slice is refused; an operator lets the job go on where it was."""
    job = stage.enqueue(SIZE, _refusing(stage, SLICE_BYTES))
    job.fails()
    _retry(job)
    job.succeeds()
    assert len(job.asked("init")) == 1


def retried_with_another_file(stage: Stage) -> None:
    """A slice is refused; the file is written anew before the retry."""
    job = stage.enqueue(SIZE, _refusing(stage, SLICE_BYTES))
    job.fails()
    stage.until(lambda: not any(row["state"] == "sending" for row in job.slices), "what was in flight")
    job.content = bytes(SIZE)
    job.path.write_bytes(job.content)
    _retry(job)
    job.succeeds()
    assert stage.store.object_at(job.key) == job.content


def _retry(job: Job) -> None:
    """Ask for it; a client that had no answer and asks again may find the job done by then."""
    answer = job.site.api.post(f"/v1/jobs/{job.id}/retry")
    assert answer.is_success or (answer.json()["code"] == "not_retryable" and job.state == "succeeded"), answer.text


def _refusing(stage: Stage, offset: int) -> str:
    key = stage.fresh_key()
    stage.store.control.add_rule("error", op="data", path=key, offset=offset, status=400, code=-5999, count=1)
    return key


def gone_on_with(stage: Stage) -> None:
    """Another job's half of the same file is there."""
    key = _refusing(stage, 2 * MIB)
    first = stage.enqueue(3 * MIB, key, verify="file")
    first.fails()
    stage.until(lambda: not any(row["state"] == "sending" for row in first.slices), "what was in flight")
    stage.enqueue(3 * MIB, key, content=first.content, verify="file").succeeds()


def revoked_on_its_way(stage: Stage) -> None:
    """An operator revokes a slice that waits for the store's answer."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=0, count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("data", key)
    _revoke(stage, job, "0")
    let_go()
    _goes_on(stage, job)


def revoked_before(stage: Stage) -> None:
    """An operator revokes a slice that nobody has taken."""
    key = stage.fresh_key()
    let_go = stage.store.hold("init", key, count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("init", key)
    _revoke(stage, job, "0")
    let_go()
    _goes_on(stage, job)


def _revoke(stage: Stage, job: Job, part: str) -> None:
    """Revoke a task, and see to it that every worker knows."""
    row = job.row
    which = {"task_id": task_id(UUID(job.id), part, row["epoch"], row["run"]), "terminate": False}
    with Celery("operator", broker=stage.broker_url, set_as_current=False) as celery:

        def heard() -> bool:
            crew = len(stage.crew())
            answers = celery.control.broadcast("revoke", arguments=which, reply=True, limit=crew, timeout=1.0)
            return len(answers or ()) == crew

        stage.until(heard, "the revoke heard by all")


def _goes_on(stage: Stage, job: Job) -> None:
    """A worker that was started since does not know of it: then the job ends without a pause."""
    stage.until(lambda: job.row["paused_at"] or job.state in FINAL, "a pause")
    _retry(job) if job.row["paused_at"] else None
    job.succeeds()


def killed(stage: Stage) -> None:
    """A worker dies, and another takes its place."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=0, count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("data", key)
    _kill(stage, job.slices[0]["worker"])
    stage.crew()
    job.succeeds()
    let_go()


def quarantined(stage: Stage) -> None:
    """A slice has killed often enough; an operator tries once more."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=0, count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("data", key)
    stage.sql("UPDATE slice SET deaths = 3 WHERE job_id = %(id)s AND number = 0", id=job.id)
    _kill(stage, job.slices[0]["worker"])
    job.reaches("failed", "succeeded")  # whoever died between its death and the verdict left it another try
    let_go()
    if job.state == "failed":
        _retry(job)
        job.succeeds()


def handed_back(stage: Stage) -> None:
    """The leader is stopped, as by a deploy, with slices on their way."""
    stage.store.control.change(rate_bytes_per_s=6 * MIB)
    job = stage.enqueue(8 * SLICE_BYTES)
    stage.until(lambda: len(job.asked("data")) > 2, "slices on their way")
    [row] = stage.sql("SELECT holder FROM leadership")
    leader = stage.worker_of(row["holder"])
    if leader is not None:
        leader.terminate()
        stage.until(lambda: not leader.alive, "its end")
    stage.store.control.change(rate_bytes_per_s=None)
    job.succeeds()


def left(stage: Stage) -> None:
    """A worker is stopped, and the store does not let it go."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=0, count=1)
    job = stage.enqueue(SIZE, key)
    stage.held("data", key)
    holder = stage.worker_of(job.slices[0]["worker"])
    if holder is not None:
        holder.terminate()
    job.succeeds()
    let_go()


def emptied(stage: Stage) -> None:
    """The broker loses what it holds."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key)
    job = stage.enqueue(24 * SLICE_BYTES, key)
    stage.until(lambda: sum(row["state"] == "dispatched" for row in job.slices) > 1, "slices in the broker")
    with stage.broker() as broker:
        broker.flushdb()
    let_go()
    job.succeeds()
