"""Injects faults into a cluster: seeded threads side by side, and a log of every fault."""

from __future__ import annotations

import json
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.faults.history import Recorder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.faults.chaos.cluster import Cluster

Row = dict[str, Any]
_NO_TARGET_S = 0.2


class FaultContext:
    """What a fault needs: the cluster, and how long a wait may be."""

    def __init__(self, cluster: Cluster, dead_after_s: float) -> None:
        """Make the context.

        Args:
            cluster: the target.
            dead_after_s: silence after which its workers count as dead.
        """
        self.cluster, self.dead_after_s = cluster, dead_after_s
        self.recorder = Recorder(cluster.history, "chaos")
        self.over = threading.Event()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the run is over."""
        self.over.wait(seconds)


#: Injects one fault and undoes it. It returns the details for the log (times in Unix seconds), or None if there was no
#: target. The function's name is the fault's name in the log and the figures.
Fault = Callable[[FaultContext, random.Random], Row | None]


class FaultLog:
    """Every fault with its time and target: a line of JSON each, and in memory for the figures."""

    def __init__(self, file: Path) -> None:
        """Write to a new file."""
        self._lock = threading.Lock()
        self._file = file.open("a", buffering=1)
        self.rows: list[Row] = []
        self.errors: list[str] = []

    def inject(self, fault: Fault, context: FaultContext, chance: random.Random) -> bool:
        """Inject a fault and record it; false if there was no target."""
        began = time.time()
        details = fault(context, chance)
        if details is None:
            return False
        row = {"at": began, "fault": fault.__name__, "ended": time.time(), **details}
        with self._lock:
            self.rows.append(row)
            self._file.write(json.dumps(row) + "\n")
        return True

    def error(self, text: str) -> None:
        """Record a failure of the harness itself: such a run proves nothing."""
        with self._lock:
            self.errors.append(text)

    def counts(self) -> Counter[str]:
        """How often each fault was injected."""
        with self._lock:
            return Counter(row["fault"] for row in self.rows)

    def of(self, *names: str) -> list[Row]:
        """The faults of these names, in the order in which they ended."""
        with self._lock:
            return [row for row in self.rows if row["fault"] in names]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FaultInjector(threading.Thread):
    """Injects one fault after the other, at random intervals, until the run is over."""

    def __init__(
        self,
        name: str,
        *,
        interval_s: float,
        faults: Mapping[Fault, float],
        context: FaultContext,
        log: FaultLog,
        seed: int,
    ) -> None:
        """Prepare an injector.

        Args:
            name: of the injector; its choices follow from it and the seed.
            interval_s: average seconds between the beginnings of two faults.
            faults: fault -> weight.
            context: of the faults.
            log: where each fault is recorded.
            seed: of the run.
        """
        super().__init__(name=name, daemon=True)
        self._interval_s, self._faults, self._context, self._log = interval_s, faults, context, log
        self._chance = random.Random(f"{seed} {name}")

    def run(self) -> None:
        """Inject faults."""
        try:
            while not self._context.over.is_set():
                began = time.monotonic()
                rest_s = self._interval_s * self._chance.uniform(0.5, 1.5) if self._inject() else _NO_TARGET_S
                self._context.pause(began + rest_s - time.monotonic())
        except Exception:  # noqa: BLE001 - the run must report that this injector has ended
            self._log.error(f"injector {self.name}: {traceback.format_exc()}")

    def _inject(self) -> bool:
        [fault] = self._chance.choices(list(self._faults), list(self._faults.values()))
        return self._log.inject(fault, self._context, self._chance)


def stop(injectors: Sequence[FaultInjector], context: FaultContext) -> None:
    """Stop all injectors: each undoes its last fault."""
    context.over.set()
    for injector in injectors:
        injector.join()
