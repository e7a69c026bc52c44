"""Recovery times with the timers as shipped: a steady load, and one fault at a time, each recovered before the next."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from typing import TYPE_CHECKING

from tests.faults.chaos.clients import Client, PacedWorkload
from tests.faults.chaos.cluster import Cluster
from tests.faults.chaos.expectations import Expectations
from tests.faults.chaos.fault_injector import Fault, FaultContext, FaultLog
from tests.faults.chaos.process_faults import leader_killed, worker_killed, worker_stopped
from tests.faults.chaos.server_faults import broker_killed, database_restarted
from tests.faults.chaos.verdict import Verdict
from tests.faults.chaos.workload import SLICE_BYTES, JobRequest, Variant
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WORKERS = 3
_SLICES = 8
_JOBS_PER_S = 2.5
#: How long the store takes for a slice, so that some slices are always in flight.
_SLICE_S = 0.4
_DEAD_AFTER_S = 10.0
_RECOVERY_TIMEOUT_S = 60.0
_FAULTS: tuple[Fault, ...] = (worker_killed, worker_stopped, broker_killed, database_restarted, leader_killed)
_WORKING = "SELECT name FROM worker WHERE ended_at IS NULL"
_LIVE = "SELECT id FROM job WHERE finished_at IS NULL LIMIT 1"


class RecoveryRun:
    """A cluster under a steady load, into which one fault after the other is injected."""

    def __init__(self, seed: int, rounds: int, folder: Path) -> None:
        """Start the cluster.

        Args:
            seed: of all choices.
            rounds: how often each fault is injected.
            folder: of the cluster.
        """
        self.seed, self.rounds = seed, rounds
        self.expectations = Expectations()
        self.cluster = Cluster(folder, workers=_WORKERS, apis=1, settings={})
        self.log = FaultLog(folder / "faults.jsonl")
        self._context = FaultContext(self.cluster, _DEAD_AFTER_S)
        self._chance = random.Random(f"drills {seed}")
        self._over = threading.Event()

    def play(self) -> None:
        """Inject every fault in each round; returns when no job is live."""
        self.cluster.store.control.add_rule("delay", op="data", delay_s=_SLICE_S)
        workload = PacedWorkload(_steady(self.seed), jobs_per_s=_JOBS_PER_S, full=lambda: False, over=self._over)
        clients = [Client(n, self.cluster, workload, self.expectations, self._over) for n in range(2)]
        for client in clients:
            client.start()
        for number, fault in itertools.product(range(1, self.rounds + 1), _FAULTS):
            self._settle()
            self.log.inject(fault, self._context, self._chance)
            sys.stdout.write(f"{time.strftime('%H:%M:%S')}  round {number} of {self.rounds}: {fault.__name__}\n")
            sys.stdout.flush()
        self._settle()
        self._over.set()
        for client in clients:
            client.join()
        wait_until(lambda: not self.cluster.sql(_LIVE), timeout_s=_RECOVERY_TIMEOUT_S, poll_s=0.2)
        self.log.close()

    def judge(self) -> Verdict:
        """Stop all workers and check the run."""
        self.cluster.supervisor.stop()
        verdict = Verdict(self.cluster, self.expectations, self.log)
        verdict.check_targets()
        return verdict

    def _settle(self) -> None:
        """Wait until the cluster has recovered from the last fault: all workers run and are known, and one leads."""

        def recovered() -> bool:
            pids = set(self.cluster.worker_pids())
            names = {int(row["name"].rpartition(":")[2]) for row in self.cluster.sql_if_up(_WORKING)}
            return len(pids) == _WORKERS and names == pids and self.cluster.leader() in pids

        last = self.log.rows[-1]["fault"] if self.log.rows else None
        if not wait_until(recovered, timeout_s=_RECOVERY_TIMEOUT_S, poll_s=0.1):
            self.expectations.error(f"not recovered within {_RECOVERY_TIMEOUT_S:g} s: {last}")
        # after the database's return the dispatcher declares no worker dead for a while
        rest_s = _DEAD_AFTER_S if last == "database_restarted" else 0.0
        self._context.pause(rest_s + self._chance.uniform(0.5, 2.0))


def _steady(seed: int) -> Iterator[JobRequest]:
    for number in itertools.count():
        yield JobRequest(
            seed=seed,
            number=number,
            size_bytes=_SLICES * SLICE_BYTES - number % 100,
            in_slices=True,
            variant=Variant.NONE,
            priority=5,
            batched=False,
            tenant="acme",
        )
