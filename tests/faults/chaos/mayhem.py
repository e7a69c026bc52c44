"""Everything that befalls a cluster in a run: five lanes side by side, so that one loss often meets another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.chaos.lanes import Act, ActLog, Lane, Scene
from tests.faults.chaos.process_acts import (
    FreezeWorker,
    KillApi,
    KillLeader,
    KillPoolChild,
    KillPoolParent,
    KillWorker,
    StopWorker,
)
from tests.faults.chaos.server_acts import (
    CutSessions,
    ExhaustConnections,
    FillBroker,
    FlushBroker,
    KillBroker,
    PauseBroker,
    RestartDatabase,
)
from tests.faults.chaos.store_acts import KillStore, MisbehaveStore, SlowStore

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Lane -> seconds between two acts, and the acts with their weights.
_LANES: Mapping[str, tuple[float, Mapping[Act, float]]] = {
    "kills": (
        1.3,
        {
            KillWorker(): 70, KillPoolChild(): 12, KillLeader(): 8, StopWorker(): 6, KillApi(): 3, KillPoolParent(): 1,
        },
    ),
    "freezes": (12.0, {FreezeWorker(): 1}),
    "broker": (10.0, {KillBroker(): 50, FlushBroker(): 30, PauseBroker(): 12, FillBroker(): 8}),
    "database": (18.0, {RestartDatabase(): 65, CutSessions(): 27, ExhaustConnections(): 8}),
    "store": (14.0, {KillStore(): 50, MisbehaveStore(): 42, SlowStore(): 8}),
}  # fmt: skip
#: Acts after which a worker process is gone without a word.
WORKER_KILLS = ("worker_killed", "pool_child_killed", "leader_killed")
BROKER_LOSSES = ("broker_killed", "broker_flushed")


def lanes(scene: Scene, log: ActLog, *, seed: int, pace: float) -> list[Lane]:
    """Return the lanes, not yet started.

    Args:
        scene: where they act.
        log: where each act is written down.
        seed: of all choices.
        pace: what the seconds between two acts are multiplied by.
    """
    return [
        Lane(name, every_s=every_s * pace, acts=acts, scene=scene, log=log, seed=seed)
        for name, (every_s, acts) in _LANES.items()
    ]
