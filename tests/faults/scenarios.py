"""Short scenarios that together reach every crash point; each ends as its job should, also with a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults import interventions
from tests.faults.interventions import MIB, SIZE
from tests.support.job import JobSpec
from tests.support.store import SLICE_BYTES
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.crash_harness import CrashHarness
    from tests.support.job import Job


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario.

    Attributes:
        play: runs it, and fails if it does not end as it should.
        about: the operations that it reaches most reliably.
    """

    play: Callable[[CrashHarness], None]
    about: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.play.__name__


def upload(harness: CrashHarness) -> None:
    """Several slices."""
    harness.enqueue(SIZE, overwrite=True).succeeds()


def small(harness: CrashHarness) -> None:
    """One request."""
    harness.enqueue(SLICE_BYTES, overwrite=True).succeeds()


def dry_run(harness: CrashHarness) -> None:
    """A dry run, and then the job."""
    harness.arm_point()
    key = harness.fresh_key()
    harness.file(key, 1000)
    harness.api.post("/v1/jobs", json=JobSpec(key, key).document, params={"dry_run": "true"}).raise_for_status()
    harness.enqueue(1000, key).succeeds()


def instant(harness: CrashHarness) -> None:
    """The store has the bytes already."""
    first = harness.enqueue(2 * MIB, verify="file")
    first.succeeds()
    harness.enqueue(2 * MIB, content=first.content, verify="file").succeeds()


def object_there(harness: CrashHarness) -> None:
    """Another client's object is at the key."""
    key = harness.fresh_key()
    harness.store.plant_object(key, b"o" * SIZE)
    assert harness.enqueue(SIZE, key).fails() == "object_exists"


def foreign(harness: CrashHarness) -> None:
    """Another client has begun an upload at the key, and does not continue it."""
    key = harness.fresh_key()
    harness.store.plant_upload(key, SIZE, b"s" * SLICE_BYTES)
    harness.enqueue(SIZE, key).succeeds()


def foreign_small(harness: CrashHarness) -> None:
    """The same, with a job of one request."""
    key = harness.fresh_key()
    harness.store.plant_upload(key, SIZE, b"s" * SLICE_BYTES)
    harness.store.control.add_rule(
        "error", op="upload", path=key, status=400, code=-4020, count=1
    )  # as real stores may
    harness.enqueue(SLICE_BYTES, key).succeeds()


def session_lost(harness: CrashHarness) -> None:
    """The store drops the session."""
    key = harness.fresh_key()
    harness.store.control.add_rule("lose_session", op="data", path=key, nth=3)
    job = harness.enqueue(SIZE, key)
    job.succeeds()
    assert job.row["epoch"] == 2


def slice_forgotten(harness: CrashHarness) -> None:
    """The store acknowledges a slice that it does not keep."""
    key = harness.fresh_key()
    harness.store.control.add_rule("swallow", op="data", path=key, offset=SLICE_BYTES, count=1)
    harness.enqueue(SIZE, key).succeeds()


def damaged(harness: CrashHarness) -> None:
    """Bytes change on the way, and the digest shows it."""
    key = harness.fresh_key()
    harness.store.control.add_rule("corrupt", op="data", path=key, offset=MIB, count=1)
    harness.enqueue(2 * MIB, key, verify="file").succeeds()


def refused_as_incomplete(harness: CrashHarness) -> None:
    """The store lists every slice, and refuses the finish as if some were missing."""
    key = harness.fresh_key()
    harness.store.control.add_rule("error", op="finish", path=key, status=400, code=-175, count=1)
    harness.enqueue(2 * MIB, key).succeeds()


def deferred(harness: CrashHarness) -> None:
    """The store is overloaded for a moment."""
    key = harness.fresh_key()
    harness.store.control.add_rule("error", op="data", path=key, status=503, code=-196, count=2)
    harness.enqueue(SIZE, key).succeeds()


def unanswered(harness: CrashHarness) -> None:
    """The store receives a slice, and the answer is lost."""
    key = harness.fresh_key()
    harness.store.control.add_rule("cut", op="data", path=key, offset=SLICE_BYTES, count=1, when="after")
    harness.enqueue(SIZE, key).succeeds()


def stalled(harness: CrashHarness) -> None:
    """The store receives a slice and does not answer before the timeout."""
    key = harness.fresh_key()
    release = harness.store.hold("data", key, offset=3 * SLICE_BYTES, count=1)
    job = harness.enqueue(SIZE, key)
    job.succeeds()
    release()


def store_unusable(harness: CrashHarness) -> None:
    """The store refuses our credentials for a while: all jobs wait, one probes."""
    key = harness.fresh_key()
    rule = harness.store.control.add_rule("error", op="data", path=key, status=403, code=-97)
    job = harness.enqueue(SIZE, key)
    harness.until(lambda: harness.sql("SELECT store FROM breaker") and not _in_flight(job), "all slices waiting")
    harness.store.control.remove_rule(rule)

    def probed() -> bool:
        harness.sql("UPDATE breaker SET probe_at = now() WHERE probe_at > now()")  # end the minute between two probes
        return job.state in FINAL

    harness.until(probed, "an end")
    job.succeeds()


def reloaded(harness: CrashHarness) -> None:
    """The store refuses our credentials; then its profile is changed, and all processes read it again."""
    key = harness.fresh_key()
    rule = harness.store.control.add_rule("error", op="data", path=key, status=403, code=-97)
    job = harness.enqueue(SIZE, key)
    harness.until(lambda: harness.sql("SELECT store FROM breaker") and not _in_flight(job), "all slices waiting")
    harness.store.control.remove_rule(rule)
    [reload] = harness.sql("SELECT generation + 1 AS number FROM stores_reload")
    number = int(reload["number"])
    changed = {"main": {**harness.stores()["main"], "max_in_flight": 64 + number}}
    harness.stores_file(stores={**harness.stores(), **changed})
    harness.sql("UPDATE stores_reload SET generation = generation + 1")

    done = "SELECT min(coalesce((stores->>'generation')::int, 0)) AS number FROM worker WHERE ended_at IS NULL"
    harness.until(lambda: (harness.sql(done)[0]["number"] or 0) >= number, "all workers to have read it")

    def probed() -> bool:
        # the successor of a process that has died after its reading finds nothing changed: the minute ends its wait
        harness.sql("UPDATE breaker SET probe_at = now() WHERE probe_at > now()")
        return job.state in FINAL

    harness.until(probed, "an end")
    job.succeeds()


def _in_flight(job: Job) -> bool:
    return any(row["state"] in {"dispatched", "sending"} for row in job.slices)


#: In the order in which they are tried for a point.
SCENARIOS = (
    Scenario(upload),
    Scenario(small),
    Scenario(interventions.killed, about=("end_dead_workers", "rescue", "start_worker")),
    Scenario(interventions.emptied, about=("was_emptied", "redispatch", "republish_lost:publish")),
    Scenario(deferred, about=("release",)),
    Scenario(dry_run),
    Scenario(object_there),
    Scenario(instant),
    Scenario(foreign),
    Scenario(foreign_small),
    Scenario(interventions.retried),
    Scenario(interventions.retried_with_another_file),
    Scenario(interventions.continued_by_another_job),
    Scenario(session_lost),
    Scenario(slice_forgotten),
    Scenario(damaged),
    Scenario(refused_as_incomplete, about=("_without_effect",)),
    Scenario(store_unusable),
    Scenario(reloaded, about=("probe_at_once",)),
    Scenario(interventions.cancelled_while_it_waits),
    Scenario(interventions.cancelled_on_its_way, about=("cancel",)),
    Scenario(interventions.acted_upon, about=("pause", "prioritise", "start_now", "resume")),
    Scenario(interventions.acted_upon_in_bulk, about=("bulk",)),
    Scenario(interventions.held, about=("holds",)),
    Scenario(interventions.limited, about=("limits",)),
    Scenario(interventions.abandoned, about=("abandon",)),
    Scenario(interventions.cancelled_without_a_session),
    Scenario(interventions.cancelled_too_late, about=("_was_faster",)),
    Scenario(interventions.revoked_on_its_way),
    Scenario(interventions.revoked_before),
    Scenario(interventions.quarantined, about=("quarantine",)),
    Scenario(interventions.handed_back, about=("stop_worker", "resign")),
    Scenario(interventions.stopped_in_a_request),
    Scenario(unanswered, about=("_is_held",)),
    Scenario(stalled),
)
