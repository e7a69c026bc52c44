"""What is done to a cluster, by whom and when: lanes of acts side by side, chosen by a seed, each written down."""

from __future__ import annotations

import json
import random
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from tests.faults.history import Recorder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.faults.chaos.cluster import Cluster

Row = dict[str, Any]
_NOBODY_S = 0.2


class Scene:
    """Where acts take place: the cluster, and how long a wait may be."""

    def __init__(self, cluster: Cluster, dead_after_s: float) -> None:
        """Set the scene.

        Args:
            cluster: what things are done to.
            dead_after_s: silence after which its workers count as dead.
        """
        self.cluster, self.dead_after_s = cluster, dead_after_s
        self.recorder = Recorder(cluster.history, "chaos")
        self.over = threading.Event()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until it is all over."""
        self.over.wait(seconds)


class Act(Protocol):
    """One thing that may befall a cluster."""

    @property
    def name(self) -> str:
        """How it is called in the log and the figures."""

    def perform(self, scene: Scene, chance: random.Random) -> Row | None:
        """Do it and undo it; returns what was done to whom (times in Unix seconds), or None if there was nobody."""


class ActLog:
    """Every act with its time and target: a line of JSON each, and in memory for the figures."""

    def __init__(self, file: Path) -> None:
        """Write to a new file."""
        self._lock = threading.Lock()
        self._file = file.open("a", buffering=1)
        self.rows: list[Row] = []
        self.faults: list[str] = []

    def write(self, name: str, began: float, details: Row) -> None:
        """Write an act down; ``began`` in Unix seconds."""
        row = {"at": began, "act": name, "ended": time.time(), **details}
        with self._lock:
            self.rows.append(row)
            self._file.write(json.dumps(row) + "\n")

    def fault(self, text: str) -> None:
        """Write down that the harness itself has failed: such a run proves nothing."""
        with self._lock:
            self.faults.append(text)

    def counts(self) -> Counter[str]:
        """How often each act was done."""
        with self._lock:
            return Counter(row["act"] for row in self.rows)

    def of(self, *names: str) -> list[Row]:
        """The acts of these names, in the order in which they ended."""
        with self._lock:
            return [row for row in self.rows if row["act"] in names]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Lane(threading.Thread):
    """Does one act after the other, about every so many seconds, until the scene is over."""

    def __init__(
        self, name: str, *, every_s: float, acts: Mapping[Act, float], scene: Scene, log: ActLog, seed: int
    ) -> None:
        """Prepare a lane.

        Args:
            name: tells its chances from those of the other lanes.
            every_s: seconds between the beginnings of two acts, on average.
            acts: act -> weight.
            scene: where.
            log: where each act is written down.
            seed: of the run.
        """
        super().__init__(name=name, daemon=True)
        self._every_s, self._acts, self._scene, self._log = every_s, acts, scene, log
        self._chance = random.Random(f"{seed} {name}")

    def run(self) -> None:
        """Act."""
        try:
            while not self._scene.over.is_set():
                began = time.monotonic()
                rest_s = self._every_s * self._chance.uniform(0.5, 1.5) if self._act() else _NOBODY_S
                self._scene.pause(began + rest_s - time.monotonic())
        except Exception:  # noqa: BLE001 - whatever it is, the run must say that this lane has ended
            self._log.fault(f"lane {self.name}: {traceback.format_exc()}")

    def _act(self) -> bool:
        """Do one act; false if there was nobody to do it to."""
        [act] = self._chance.choices(list(self._acts), list(self._acts.values()))
        began = time.time()
        details = act.perform(self._scene, self._chance)
        if details is None:
            return False
        self._log.write(act.name, began, details)
        return True


def start(lanes: Sequence[Lane]) -> None:
    """Start all lanes."""
    for lane in lanes:
        lane.start()


def end(lanes: Sequence[Lane], scene: Scene) -> None:
    """End all lanes: each undoes what it has just done."""
    scene.over.set()
    for lane in lanes:
        lane.join()
