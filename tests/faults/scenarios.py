"""Short stories that between them pass every point: each ends as its job should, whoever dies on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from celery import Celery

from tests.acceptance.job import Wish
from tests.acceptance.store import SLICE_BYTES
from worker.jobs.ids import task_id
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.job import Job
    from tests.faults.stage import Stage

MIB = 1024 * 1024
SIZE = 3 * SLICE_BYTES + 4321


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story.

    Attributes:
        play: tells it, and fails where it does not end as it should.
        about: the operations that it is the best story for; others pass there in a hurry.
    """

    play: Callable[[Stage], None]
    about: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How it is called."""
        return self.play.__name__


def upload(stage: Stage) -> None:
    """Several slices."""
    stage.enqueue(SIZE, overwrite=True).succeeds()


def small(stage: Stage) -> None:
    """One request."""
    stage.enqueue(SLICE_BYTES, overwrite=True).succeeds()


def dry_run(stage: Stage) -> None:
    """A question, and then the job."""
    stage.strike()
    key = stage.fresh_key()
    stage.file(key, 1000)
    wish = {"source": {"kind": "file", "root": "media", "path": key}, "store": "main", "key": key}
    stage.api.post("/v1/jobs", json=wish, params={"dry_run": "true"}).raise_for_status()
    stage.enqueue(1000, key).succeeds()


def instant(stage: Stage) -> None:
    """The store has the bytes already."""
    first = stage.enqueue(2 * MIB, verify="file")
    first.succeeds()
    stage.enqueue(2 * MIB, content=first.content, verify="file").succeeds()


def object_there(stage: Stage) -> None:
    """Somebody's object is at the key."""
    key = stage.fresh_key()
    stage.store.plant_object(key, b"o" * SIZE)
    assert stage.enqueue(SIZE, key).fails() == "object_exists"


def cancelled_on_its_way(stage: Stage) -> None:
    """A slice is being sent."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, count=1)
    job = stage.enqueue(SIZE, key)
    stage.store.held("data", key)
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
    job = stage.submit(Wish(key, key, root="volume"), b"")
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
    stage.store.held("finish", key)
    job.act("cancel")
    _kill(stage, job.row["worker"])
    job.reaches("succeeded")
    let_go()


def _kill(stage: Stage, identity: object) -> None:
    worker = stage.worker_of(identity)
    if worker is not None and worker.alive:
        worker.kill()


def foreign(stage: Stage) -> None:
    """Somebody has begun to upload there, and left."""
    key = stage.fresh_key()
    stage.store.plant_upload(key, SIZE, b"s" * SLICE_BYTES)
    stage.enqueue(SIZE, key).succeeds()


def foreign_small(stage: Stage) -> None:
    """The same, and we have one request only."""
    key = stage.fresh_key()
    stage.store.plant_upload(key, SIZE, b"s" * SLICE_BYTES)
    stage.store.control.add_rule("error", op="upload", path=key, status=400, code=-4020, count=1)  # as real stores may
    stage.enqueue(SLICE_BYTES, key).succeeds()


def retried(stage: Stage) -> None:
    """A slice is refused; an operator lets the job go on where it was."""
    job = stage.enqueue(SIZE, _refusing(stage, SLICE_BYTES))
    job.fails()
    _retry(job)
    job.succeeds()
    assert len(job.asked("init")) == 1


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


def session_lost(stage: Stage) -> None:
    """The store forgets what it has."""
    key = stage.fresh_key()
    stage.store.control.add_rule("lose_session", op="data", path=key, nth=3)
    job = stage.enqueue(SIZE, key)
    job.succeeds()
    assert job.row["epoch"] == 2


def slice_forgotten(stage: Stage) -> None:
    """The store has acknowledged a slice, and does not have it."""
    key = stage.fresh_key()
    stage.store.control.add_rule("swallow", op="data", path=key, offset=SLICE_BYTES, count=1)
    stage.enqueue(SIZE, key).succeeds()


def damaged(stage: Stage) -> None:
    """Bytes were changed on their way, and the digest tells."""
    key = stage.fresh_key()
    stage.store.control.add_rule("corrupt", op="data", path=key, offset=MIB, count=1)
    stage.enqueue(2 * MIB, key, verify="file").succeeds()


def deferred(stage: Stage) -> None:
    """The store is too busy for a moment."""
    key = stage.fresh_key()
    stage.store.control.add_rule("error", op="data", path=key, status=503, code=-196, count=2)
    stage.enqueue(SIZE, key).succeeds()


def stalled(stage: Stage) -> None:
    """The store takes a slice and does not answer until its time is up."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=3 * SLICE_BYTES, count=1)
    job = stage.enqueue(SIZE, key)
    job.succeeds()
    let_go()


def store_unusable(stage: Stage) -> None:
    """The store does not know us for a while: all wait, one probes."""
    key = stage.fresh_key()
    rule = stage.store.control.add_rule("error", op="data", path=key, status=403, code=-97)
    job = stage.enqueue(SIZE, key)
    stage.until(lambda: stage.sql("SELECT store FROM breaker") and not _flying(job), "all of them waiting")
    stage.store.control.remove_rule(rule)

    def probed() -> bool:
        stage.sql("UPDATE breaker SET probe_at = now() WHERE probe_at > now()")  # the minute between two is over
        return job.state in FINAL

    stage.until(probed, "an end")
    job.succeeds()


def _flying(job: Job) -> bool:
    return any(row["state"] in {"dispatched", "sending"} for row in job.slices)


def revoked_on_its_way(stage: Stage) -> None:
    """An operator revokes a slice that waits for the store's answer."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=0, count=1)
    job = stage.enqueue(SIZE, key)
    stage.store.held("data", key)
    _revoke(stage, job, "0")
    let_go()
    _goes_on(stage, job)


def revoked_before(stage: Stage) -> None:
    """An operator revokes a slice that nobody has taken."""
    key = stage.fresh_key()
    let_go = stage.store.hold("init", key, count=1)
    job = stage.enqueue(SIZE, key)
    stage.store.held("init", key)
    _revoke(stage, job, "0")
    let_go()
    _goes_on(stage, job)


def _revoke(stage: Stage, job: Job, part: str) -> None:
    """Revoke a task, and see to it that every worker knows."""
    row = job.row
    which = {"task_id": task_id(UUID(job.id), part, row["epoch"], row["run"]), "terminate": False}
    with Celery("operator", broker=stage.valkey.url, set_as_current=False) as celery:

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
    stage.store.held("data", key)
    _kill(stage, job.slices[0]["worker"])
    stage.crew()
    job.succeeds()
    let_go()


def quarantined(stage: Stage) -> None:
    """A slice has killed often enough; an operator tries once more."""
    key = stage.fresh_key()
    let_go = stage.store.hold("data", key, offset=0, count=1)
    job = stage.enqueue(SIZE, key)
    stage.store.held("data", key)
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
    stage.store.held("data", key)
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
        broker.flushall()
    let_go()
    job.succeeds()


#: In the order in which a point looks for the story that it is part of.
SCENARIOS = (
    Scenario(upload),
    Scenario(small),
    Scenario(killed, about=("end_dead_workers", "rescue", "start_worker")),
    Scenario(emptied, about=("was_emptied", "redispatch", "_republish_lost:publish")),
    Scenario(deferred, about=("release",)),
    Scenario(dry_run),
    Scenario(object_there),
    Scenario(instant),
    Scenario(foreign),
    Scenario(foreign_small),
    Scenario(retried),
    Scenario(gone_on_with),
    Scenario(session_lost),
    Scenario(slice_forgotten),
    Scenario(damaged),
    Scenario(store_unusable),
    Scenario(cancelled_while_it_waits),
    Scenario(cancelled_on_its_way, about=("cancel",)),
    Scenario(cancelled_without_a_session),
    Scenario(cancelled_too_late),
    Scenario(revoked_on_its_way),
    Scenario(revoked_before),
    Scenario(quarantined),
    Scenario(handed_back, about=("stop_worker", "resign")),
    Scenario(left),
    Scenario(stalled),
)
