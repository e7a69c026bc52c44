"""One run: a cluster, clients, an operator and the fault schedule; then a time without faults, and the verdict."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.chaos.clients import Client, PacedWorkload
from tests.faults.chaos.cluster import Cluster
from tests.faults.chaos.expectations import Expectations
from tests.faults.chaos.fault_injector import FaultContext, FaultLog, stop
from tests.faults.chaos.fault_schedule import BROKER_LOSSES, WORKER_KILLS, injectors
from tests.faults.chaos.operators import FAILED, Operator
from tests.faults.chaos.verdict import Verdict
from tests.faults.chaos.workload import workload
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from pathlib import Path

_CLIENTS = 4
_MAX_LIVE_JOBS = 1500
#: Parts of the time for faults: when the clients should have submitted all jobs, and when the faults stop anyway.
_SUBMITTED_BY, _LATEST = 0.85, 1.5
_POLL_INTERVAL_S = 1.0
_REPORT_INTERVAL_S = 5.0
_STATES = "SELECT state, count(*) AS n FROM job GROUP BY state"


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run; all random choices follow from the seed.

    Attributes:
        seed: of the jobs and of the faults.
        faults_s: how long faults are injected; longer if the clients have not submitted all jobs by then.
        jobs: how many.
        pace: what the seconds between two faults are multiplied by.
        time_scale: what the cluster's timers are multiplied by.
        settle_s: how long the last jobs may take without further faults.
        workers: worker processes.
        link_bytes_per_s: bandwidth of the link to the store; None: no limit.
    """

    seed: int
    faults_s: float
    jobs: int
    pace: float = 1.0
    time_scale: float = 0.2
    settle_s: float = 600.0
    workers: int = 4
    link_bytes_per_s: int | None = None

    @property
    def dead_after_s(self) -> float:
        """Silence after which a worker counts as dead."""
        return 10.0 * self.time_scale


class Run:
    """A cluster under load and faults."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Start the cluster in a folder."""
        self.plan, self.folder = plan, folder
        self.expectations = Expectations()
        self.cluster = Cluster(
            folder,
            workers=plan.workers,
            apis=2,
            settings={"SLICEWAY_TIME_SCALE": str(plan.time_scale)},
            link_bytes_per_s=plan.link_bytes_per_s,
        )
        self.log = FaultLog(folder / "faults.jsonl")
        self.context = FaultContext(self.cluster, plan.dead_after_s)
        self.states: Counter[str] = Counter()
        self._over = threading.Event()
        self._began = time.monotonic()
        self._next_report_s = 0.0

    @property
    def live(self) -> int:
        """How many jobs were not final at the last poll."""
        return sum(n for state, n in self.states.items() if state not in FINAL)

    def play(self) -> None:
        """Submit all jobs and inject faults; returns when no job is live, or after ``settle_s`` without faults."""
        paced = PacedWorkload(
            workload(self.plan.seed, self.plan.jobs),
            jobs_per_s=self.plan.jobs / (_SUBMITTED_BY * self.plan.faults_s),
            full=lambda: self.live > _MAX_LIVE_JOBS,
            over=self._over,
        )
        clients = [Client(n, self.cluster, paced, self.expectations, self._over) for n in range(_CLIENTS)]
        operator = Operator(self.cluster, self.expectations, self._over)
        faults = injectors(self.context, self.log, seed=self.plan.seed, pace=self.plan.pace)
        for thread in (*clients, operator, *faults):
            thread.start()
        until, latest = (self._began + self.plan.faults_s * part for part in (1.0, _LATEST))
        while (now := time.monotonic()) < until or (any(client.is_alive() for client in clients) and now < latest):
            self._poll("faults")
        stop(faults, self.context)
        self.cluster.store.calm()
        until = time.monotonic() + self.plan.settle_s
        while time.monotonic() < until and (any(client.is_alive() for client in clients) or not self._settled()):
            self._poll("settling")
        self._over.set()
        operator.join()
        self.log.close()

    def judge(self) -> Verdict:
        """Stop all workers, so that nothing changes any more, and check the run."""
        self.cluster.supervisor.stop()
        return Verdict(self.cluster, self.expectations, self.log)

    def _settled(self) -> bool:
        return bool(self.states) and self.live == 0 and not self.cluster.sql(FAILED)

    def _poll(self, phase: str) -> None:
        self._over.wait(_POLL_INTERVAL_S)
        rows = self.cluster.sql_if_up(_STATES)
        if rows:
            self.states = Counter({row["state"]: row["n"] for row in rows})
        if time.monotonic() >= self._next_report_s:
            self._next_report_s = time.monotonic() + _REPORT_INTERVAL_S
            sys.stdout.write(f"{time.monotonic() - self._began:6.0f} s  {phase}  {self._progress()}\n")
            sys.stdout.flush()

    def _progress(self) -> str:
        ended = ", ".join(f"{self.states[state]} {state}" for state in sorted(FINAL))
        counts = self.log.counts()
        injected = {
            "worker kills": sum(counts[name] for name in WORKER_KILLS),
            "broker losses": sum(counts[name] for name in BROKER_LOSSES),
            "database restarts": counts["database_restarted"],
            "store restarts": counts["store_killed"],
        }
        faults = ", ".join(f"{n} {what}" for what, n in injected.items())
        return f"{self.states.total()} jobs: {self.live} live, {ended}; {faults}, {counts.total()} faults in all"
