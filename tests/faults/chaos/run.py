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
from tests.faults.chaos.judgement import Judgement
from tests.faults.chaos.lanes import ActLog, Scene, end, start
from tests.faults.chaos.mayhem import BROKER_LOSSES, WORKER_KILLS, lanes
from tests.faults.chaos.operators import FAILED, Operator
from tests.faults.chaos.told import Told
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from pathlib import Path

_CLIENTS = 4
_LIVE_MAX = 1500
#: The clients are to be through when so much of the time has passed; no run acts longer than the other.
_THROUGH, _LATEST = 0.85, 1.5
_LOOK_EVERY_S = 1.0
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
        link_bytes_per_s: what the link to the store carries; None: all that is sent.
    """

    seed: int
    acting_s: float
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
    """A run in the making."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Start the cluster in a folder."""
        self.plan, self.folder = plan, folder
        self.told = Told()
        self.cluster = Cluster(
            folder,
            workers=plan.workers,
            apis=2,
            settings={"SLICEWAY_TIME_SCALE": str(plan.time_scale)},
            link_bytes_per_s=plan.link_bytes_per_s,
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
            jobs_per_s=self.plan.jobs / (_THROUGH * self.plan.acting_s),
            full=lambda: self.live > _LIVE_MAX,
            over=self._over,
        )
        clients = [Client(n, self.cluster, office, self.told, self._over) for n in range(_CLIENTS)]
        operator = Operator(self.cluster, self.told, self._over)
        acting = lanes(self.scene, self.log, seed=self.plan.seed, pace=self.plan.pace)
        for thread in (*clients, operator):
            thread.start()
        start(acting)
        until, latest = (self._began + self.plan.acting_s * part for part in (1.0, _LATEST))
        while (now := time.monotonic()) < until or (any(client.is_alive() for client in clients) and now < latest):
            self._look("acting")
        end(acting, self.scene)
        self.cluster.store.calm()
        until = time.monotonic() + self.plan.settle_s
        while time.monotonic() < until and (any(client.is_alive() for client in clients) or not self._settled()):
            self._look("quiet")
        self._over.set()
        operator.join()
        self.log.close()

    def judge(self) -> Judgement:
        """Look at what has become of it all. The workers stop first: nobody changes anything any more."""
        self.cluster.keeper.dismiss()
        return Judgement(self.cluster, self.told, self.log)

    def _settled(self) -> bool:
        return bool(self.states) and self.live == 0 and not self.cluster.sql(FAILED)

    def _look(self, phase: str) -> None:
        self._over.wait(_LOOK_EVERY_S)
        rows = self.cluster.ask(_STATES)
        if rows:
            self.states = Counter({row["state"]: row["n"] for row in rows})
        if time.monotonic() >= self._next_tell_s:
            self._next_tell_s = time.monotonic() + _TELL_EVERY_S
            sys.stdout.write(f"{time.monotonic() - self._began:6.0f} s  {phase}  {self._standing()}\n")
            sys.stdout.flush()

    def _standing(self) -> str:
        ended = ", ".join(f"{self.states[state]} {state}" for state in sorted(FINAL))
        counts = self.log.counts()
        done = {
            "worker kills": sum(counts[name] for name in WORKER_KILLS),
            "broker losses": sum(counts[name] for name in BROKER_LOSSES),
            "database restarts": counts["database_restarted"],
            "store restarts": counts["store_killed"],
        }
        acts = ", ".join(f"{n} {what}" for what, n in done.items())
        return f"{self.states.total()} jobs: {self.live} live, {ended}; {acts}, {counts.total()} acts in all"
