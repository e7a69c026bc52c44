"""Recovery times with the timers as shipped: a steady load, and one fault at a time, each over before the next."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from typing import TYPE_CHECKING

from tests.faults.chaos.clients import Client, Office
from tests.faults.chaos.cluster import Cluster
from tests.faults.chaos.errands import SLICE_BYTES, Errand, Twist
from tests.faults.chaos.judgement import Judgement
from tests.faults.chaos.lanes import Act, ActLog, Scene
from tests.faults.chaos.process_acts import KillLeader, KillWorker, StopWorker
from tests.faults.chaos.server_acts import KillBroker, RestartDatabase
from tests.faults.chaos.told import Told
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WORKERS = 3
_SLICES = 8
_JOBS_PER_S = 2.5
#: What each request for a slice takes at the store, so that some are always in flight.
_SLICE_S = 0.4
_DEAD_AFTER_S = 10.0
_OVER_S = 60.0
_ACTS: tuple[Act, ...] = (KillWorker(), StopWorker(), KillBroker(), RestartDatabase(), KillLeader())
_WORKING = "SELECT name FROM worker WHERE ended_at IS NULL"
_LIVE = "SELECT id FROM job WHERE finished_at IS NULL LIMIT 1"


class Drills:
    """A cluster under a steady load, on which one fault after the other is tried."""

    def __init__(self, seed: int, rounds: int, folder: Path) -> None:
        """Start the cluster.

        Args:
            seed: of all choices.
            rounds: how often each fault is done.
            folder: where everything lives.
        """
        self.seed, self.rounds = seed, rounds
        self.told = Told()
        self.cluster = Cluster(folder, workers=_WORKERS, apis=1, settings={})
        self.log = ActLog(folder / "acts.jsonl")
        self._scene = Scene(self.cluster, _DEAD_AFTER_S)
        self._chance = random.Random(f"drills {seed}")
        self._over = threading.Event()

    def play(self) -> None:
        """Do every fault in turn, as often as there are rounds; returns when no job is live."""
        self.cluster.store.control.add_rule("delay", op="data", delay_s=_SLICE_S)
        office = Office(_steady(self.seed), jobs_per_s=_JOBS_PER_S, full=lambda: False, over=self._over)
        clients = [Client(n, self.cluster, office, self.told, self._over) for n in range(2)]
        for client in clients:
            client.start()
        for turn, act in itertools.product(range(self.rounds), _ACTS):
            self._settle()
            began = time.time()
            details = act.perform(self._scene, self._chance)
            if details is not None:
                self.log.write(act.name, began, details)
            sys.stdout.write(f"{time.strftime('%H:%M:%S')}  round {turn + 1} of {self.rounds}: {act.name}\n")
            sys.stdout.flush()
        self._settle()
        self._over.set()
        for client in clients:
            client.join()
        wait_until(lambda: not self.cluster.sql(_LIVE), timeout_s=_OVER_S, poll_s=0.2)
        self.log.close()

    def judge(self) -> Judgement:
        """Look at what has become of it all."""
        self.cluster.keeper.dismiss()
        judgement = Judgement(self.cluster, self.told, self.log)
        judgement.hold_to_targets()
        return judgement

    def _settle(self) -> None:
        """Wait until nothing is left of the last fault: who is said to work runs, all do, and one of them leads."""

        def standing() -> bool:
            pids = set(self.cluster.worker_pids())
            names = {int(row["name"].rpartition(":")[2]) for row in self.cluster.ask(_WORKING)}
            return len(pids) == _WORKERS and names == pids and self.cluster.leader() in pids

        if not wait_until(standing, timeout_s=_OVER_S, poll_s=0.1):
            self.told.fault(f"not over within {_OVER_S:g} s: {self.log.rows[-1]}")
        last = self.log.rows[-1]["act"] if self.log.rows else None
        # nobody is judged dead so soon after the database's return: that is of the last fault, too
        rest_s = _DEAD_AFTER_S if last == "database_restarted" else 0.0
        self._scene.pause(rest_s + self._chance.uniform(0.5, 2.0))


def _steady(seed: int) -> Iterator[Errand]:
    for number in itertools.count():
        yield Errand(
            seed=seed,
            number=number,
            size_bytes=_SLICES * SLICE_BYTES - number % 100,
            in_slices=True,
            twist=Twist.NONE,
            priority=5,
            batched=False,
            tenant="acme",
        )
