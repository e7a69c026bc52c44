"""Short stories that between them pass every point: each ends as its job should, whoever dies on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults import interventions
from tests.faults.interventions import MIB, SIZE
from tests.support.store import SLICE_BYTES
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.stage import Stage
    from tests.support.job import Job


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


def refused_as_incomplete(stage: Stage) -> None:
    """The store lists every slice, and refuses the finish as if some were missing."""
    key = stage.fresh_key()
    stage.store.control.add_rule("error", op="finish", path=key, status=400, code=-175, count=1)
    stage.enqueue(2 * MIB, key).succeeds()


def deferred(stage: Stage) -> None:
    """The store is too busy for a moment."""
    key = stage.fresh_key()
    stage.store.control.add_rule("error", op="data", path=key, status=503, code=-196, count=2)
    stage.enqueue(SIZE, key).succeeds()


def unanswered(stage: Stage) -> None:
    """The store takes a slice, and the answer is lost."""
    key = stage.fresh_key()
    stage.store.control.add_rule("cut", op="data", path=key, offset=SLICE_BYTES, count=1, when="after")
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


#: In the order in which a point looks for the story that it is part of.
SCENARIOS = (
    Scenario(upload),
    Scenario(small),
    Scenario(interventions.killed, about=("end_dead_workers", "rescue", "start_worker")),
    Scenario(interventions.emptied, about=("was_emptied", "redispatch", "_republish_lost:publish")),
    Scenario(deferred, about=("release",)),
    Scenario(dry_run),
    Scenario(object_there),
    Scenario(instant),
    Scenario(foreign),
    Scenario(foreign_small),
    Scenario(interventions.retried),
    Scenario(interventions.retried_with_another_file),
    Scenario(interventions.gone_on_with),
    Scenario(session_lost),
    Scenario(slice_forgotten),
    Scenario(damaged),
    Scenario(refused_as_incomplete, about=("_without_effect",)),
    Scenario(store_unusable),
    Scenario(interventions.cancelled_while_it_waits),
    Scenario(interventions.cancelled_on_its_way, about=("cancel",)),
    Scenario(interventions.cancelled_without_a_session),
    Scenario(interventions.cancelled_too_late, about=("_was_faster",)),
    Scenario(interventions.revoked_on_its_way),
    Scenario(interventions.revoked_before),
    Scenario(interventions.quarantined),
    Scenario(interventions.handed_back, about=("stop_worker", "resign")),
    Scenario(interventions.left),
    Scenario(unanswered, about=("_is_held",)),
    Scenario(stalled),
)
