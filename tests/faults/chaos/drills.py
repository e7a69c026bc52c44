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
_JOBS_PER_S = 1.5
#: What each request for a slice takes at the store, so that some are always in flight.
_SLICE_S = 0.4
_DEAD_AFTER_S = 10.0
_OVER_S = 60.0
_ACTS: tuple[Act, ...] = (KillWorker(), StopWorker(), KillBroker(), RestartDatabase(), KillLeader())
_STANDING = """
  SELECT (SELECT count(*) FROM worker WHERE ended_at IS NULL) AS workers,
         (SELECT count(*) FROM slice s LEFT JOIN worker w ON w.id = s.worker
          WHERE s.state = 'sending' AND (w.id IS NULL OR w.ended_at IS NOT NULL)) AS orphans,
         (SELECT count(*) FROM leadership l JOIN worker w ON w.id = l.holder
          WHERE l.until > now() AND w.ended_at IS NULL) AS leaders,
         (SELECT count(*) FROM slice WHERE state = 'sending') AS flying"""


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
        live = "SELECT FROM job WHERE finished_at IS NULL LIMIT 1"
        wait_until(lambda: not self.cluster.sql(live), timeout_s=_OVER_S, poll_s=0.2)
        self.log.close()

    def judge(self) -> Judgement:
        """Look at what has become of it all."""
        self.cluster.keeper.dismiss()
        judgement = Judgement(self.cluster, self.told, self.log)
        judgement.hold_to_targets()
        return judgement

    def _settle(self) -> None:
        """Wait until nothing is left of the last fault, and work is in flight; then a little longer, by chance."""

        def standing() -> bool:
            rows = self.cluster.ask(_STANDING)
            return bool(rows) and (
                rows[0]["workers"] == _WORKERS and rows[0]["orphans"] == 0 and rows[0]["leaders"] == 1
            )

        if not wait_until(standing, timeout_s=_OVER_S, poll_s=0.1):
            self.told.fault(f"not over within {_OVER_S:g} s: {self.log.rows[-1]}")
        self._scene.pause(self._chance.uniform(0.5, 2.0))


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
