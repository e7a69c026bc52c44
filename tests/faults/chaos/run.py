"""One run: a cluster, clients, an operator, and everything that befalls them; then quiet, and judgement."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.chaos.clients import Client, Office
from tests.faults.chaos.cluster import Cluster
from tests.faults.chaos.errands import errands
from tests.faults.chaos.lanes import ActLog, Scene, end, start
from tests.faults.chaos.mayhem import lanes
from tests.faults.chaos.operators import Operator
from tests.faults.chaos.told import Told
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from pathlib import Path

_CLIENTS = 4
_LIVE_MAX = 1500
_TELL_EVERY_S = 5.0
_STATES = "SELECT state, count(*) AS n FROM job GROUP BY state"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be like; all that is left to chance follows from the seed.

    Attributes:
        seed: of the jobs and of the acts.
        acting_s: how long something befalls the cluster; longer if the clients are not through by then.
        jobs: how many.
        pace: what the seconds between two acts are multiplied by.
        time_scale: what the cluster's timers are multiplied by.
        settle_s: how long the last jobs may take once all is quiet.
        workers: worker processes.
    """

    seed: int
    acting_s: float
    jobs: int
    pace: float = 1.0
    time_scale: float = 0.2
    settle_s: float = 300.0
    workers: int = 4

    @property
    def dead_after_s(self) -> float:
        """Silence after which a worker counts as dead."""
        return 10.0 * self.time_scale


class Run:
    """A run in the making."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Start the cluster in a folder."""
        self.plan, self.folder = plan, folder
        self.told = Told()
        self.cluster = Cluster(
            folder, workers=plan.workers, apis=2, settings={"SLICEWAY_TIME_SCALE": str(plan.time_scale)}
        )
        self.log = ActLog(folder / "acts.jsonl")
        self.scene = Scene(self.cluster, plan.dead_after_s)
        self.states: Counter[str] = Counter()
        self._over = threading.Event()
        self._began = time.monotonic()
        self._next_tell_s = 0.0

    @property
    def live(self) -> int:
        """How many jobs were not final when somebody looked last."""
        return sum(n for state, n in self.states.items() if state not in FINAL)

    def play(self) -> None:
        """Let it happen; returns when all is quiet and no job is live, or the patience is over."""
        office = Office(
            errands(self.plan.seed, self.plan.jobs),
            jobs_per_s=self.plan.jobs / (0.8 * self.plan.acting_s),
            full=lambda: self.live > _LIVE_MAX,
            over=self._over,
        )
        clients = [Client(n, self.cluster, office, self.told, self._over) for n in range(_CLIENTS)]
        operator = Operator(self.cluster, self.told, self._over)
        acting = lanes(self.scene, self.log, seed=self.plan.seed, pace=self.plan.pace)
        for thread in (*clients, operator):
            thread.start()
        start(acting)
        until = self._began + self.plan.acting_s
        while time.monotonic() < until or any(client.is_alive() for client in clients):
            self._look("acting")
        end(acting, self.scene)
        self.cluster.store.calm()
        until = time.monotonic() + self.plan.settle_s
        while time.monotonic() < until and not self._settled():
            self._look("quiet")
        self._over.set()
        operator.join()

    def _settled(self) -> bool:
        return bool(self.states) and self.live == 0 and not self.cluster.ask(_WAITS_FOR_RETRY)

    def _look(self, phase: str) -> None:
        time.sleep(1.0)
        rows = self.cluster.ask(_STATES)
        if rows:
            self.states = Counter({row["state"]: row["n"] for row in rows})
        if time.monotonic() >= self._next_tell_s:
            self._next_tell_s = time.monotonic() + _TELL_EVERY_S
            states = " ".join(f"{state} {n}" for state, n in sorted(self.states.items()))
            acts = " ".join(f"{name} {n}" for name, n in sorted(self.log.counts().items()))
            sys.stdout.write(f"{time.monotonic() - self._began:6.0f} s  {phase}  {states}  |  {acts}\n")
            sys.stdout.flush()


_WAITS_FOR_RETRY = "SELECT FROM job WHERE state = 'failed' AND error->>'code' <> 'object_exists' LIMIT 1"
