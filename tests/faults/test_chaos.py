"""All faults together for half a minute; the store down for ten scaled minutes; a slice that kills every worker."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.chaos.poisoned_worker import POISON, POISON_OFFSET_BYTES
from tests.faults.chaos.run import Plan, Run
from tests.faults.chaos.supervisor import SupervisedProcess, Supervisor
from tests.support.installation import MIB, QUICK
from tests.support.store import SLICE_BYTES
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.job import Job

SCALE = 0.03
OUTAGE_S = 600 * SCALE
#: The waits are scaled; heartbeats are not, since a loaded machine must not make workers look dead.
SCALED = {
    "SLICEWAY_TIME_SCALE": str(SCALE),
    "SLICEWAY_HEARTBEAT_S": "10",
    "SLICEWAY_DEAD_AFTER_S": "100",
    "SLICEWAY_LEAD_S": "30",
}
_FAILING = """
  SELECT count(*) AS n FROM job WHERE id = ANY (%(ids)s::uuid[])
  AND failing_since < now() - make_interval(secs => %(for_s)s)"""


def test_kills_losses_restarts_and_lies_for_half_a_minute_lose_nothing(server_folder: Path) -> None:
    folder = server_folder / "chaos"
    folder.mkdir(mode=0o711)
    run = Run(Plan(seed=20, faults_s=25, jobs=150, pace=0.7, settle_s=600, workers=4), folder)
    try:
        run.play()
        verdict = run.judge()
    finally:
        run.cluster.close()
    figures = "\n".join(f"{name}: {value}" for name, value in verdict.figures)
    assert verdict.wrong == [], figures
    counts = run.log.counts()
    assert counts["worker_killed"] > 0, figures
    assert counts.keys() & {"broker_killed", "broker_flushed"}, figures
    assert counts.keys() & {"database_restarted", "sessions_cut", "connections_exhausted"}, figures
    assert verdict.report.figures.jobs["succeeded"] > 100, figures


def test_ten_minutes_without_the_store_use_up_no_attempt_and_fail_nothing(site: Installation) -> None:
    site.workers(2, **SCALED)
    keys = [site.fresh_key() for _ in range(2)]
    for key in keys:
        site.store.hold("data", key, offset=3 * SLICE_BYTES)
    under_way = [site.enqueue(4 * MIB, key) for key in keys]
    for job in under_way:
        site.until(partial(_has_begun, job), "a slice of each")
    site.store.kill()
    jobs = [*under_way, *(site.enqueue(size) for size in (1000, SLICE_BYTES, 2 * MIB))]

    def all_failing() -> bool:
        [row] = site.sql(_FAILING, ids=[job.id for job in jobs], for_s=OUTAGE_S)
        return bool(row["n"] == len(jobs))

    try:
        site.until(all_failing, "ten scaled minutes of failures")
        assert not [job.state for job in jobs if job.state in FINAL]
        assert {job.row["error"]["code"] for job in jobs} == {"store_unavailable"}
    finally:
        site.store.start()
    for job in jobs:
        _unharmed(job)


def test_a_slice_that_kills_every_worker_is_quarantined_and_other_jobs_succeed(site: Installation) -> None:
    site.workers(0)
    poisoned = site.enqueue(2 * MIB, "poisoned")
    others = [site.enqueue(size) for size in (1000, 2 * MIB, 3 * MIB, SLICE_BYTES)]
    variables = {POISON: "poisoned", POISON_OFFSET_BYTES: str(SLICE_BYTES), "PYTHONPATH": str(_ROOT)}
    supervisor = Supervisor([_poisoned_worker(site, f"worker-poisoned-{n}", variables) for n in (1, 2)])
    supervisor.start()
    try:
        error = poisoned.reaches("failed").view["error"]
        assert (error["code"], "slice 1" in error["message"]) == ("quarantined", True)
        assert [row["deaths"] for row in poisoned.slices if row["number"] == 1] == [4]
        for job in others:
            _unharmed(job)
    finally:
        supervisor.stop()


_ROOT = Path(__file__).parents[2]


def _poisoned_worker(site: Installation, name: str, variables: dict[str, str]) -> SupervisedProcess:
    celery = ["--quiet", "-A", "worker", "worker", "--without-gossip", "--without-mingle", "-n", f"{name}@%h"]
    argv = [sys.executable, "-m", "tests.faults.chaos.poisoned_worker", *celery]
    return SupervisedProcess(name, site.environ | QUICK | variables, site.folder, argv)


def _has_begun(job: Job) -> bool:
    return job.done() > 0


def _unharmed(job: Job) -> None:
    """The job succeeds as without a fault: no attempt used up, never failed, in its first epoch."""
    result = job.succeeds()
    row = job.row
    assert (row["epoch"], row["attempts"], (result["slices"] or {}).get("failed_attempts", 0)) == (1, 0, 0)
    assert "failed" not in job.kinds
