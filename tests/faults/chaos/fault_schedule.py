"""The fault schedule of a run: five injectors side by side, so that faults of different parts often overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.chaos import process_faults, server_faults, store_faults
from tests.faults.chaos.fault_injector import FaultInjector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.faults.chaos.fault_injector import Fault, FaultContext, FaultLog

#: Injector -> average seconds between two faults, and its faults with their weights.
_SCHEDULE: Mapping[str, tuple[float, Mapping[Fault, float]]] = {
    "kills": (
        1.3,
        {
            process_faults.worker_killed: 70,
            process_faults.pool_child_killed: 12,
            process_faults.leader_killed: 8,
            process_faults.worker_stopped: 6,
            process_faults.api_killed: 3,
            process_faults.pool_parent_killed: 1,
        },
    ),
    "freezes": (12.0, {process_faults.worker_frozen: 1}),
    "broker": (
        10.0,
        {
            server_faults.broker_killed: 50,
            server_faults.broker_flushed: 30,
            server_faults.broker_paused: 12,
            server_faults.broker_full: 8,
        },
    ),
    "database": (
        18.0,
        {
            server_faults.database_restarted: 65,
            server_faults.sessions_cut: 27,
            server_faults.connections_exhausted: 8,
        },
    ),
    "store": (14.0, {store_faults.store_killed: 50, store_faults.store_faulty: 42, store_faults.store_slow: 8}),
}
#: Faults that end a worker process without a chance to stop in order.
WORKER_KILLS = ("worker_killed", "pool_child_killed", "leader_killed")
BROKER_LOSSES = ("broker_killed", "broker_flushed")


def injectors(context: FaultContext, log: FaultLog, *, seed: int, pace: float) -> list[FaultInjector]:
    """Return the injectors, not yet started.

    Args:
        context: of the faults.
        log: where each fault is recorded.
        seed: of all choices.
        pace: what the seconds between two faults are multiplied by.
    """
    return [
        FaultInjector(name, interval_s=interval_s * pace, faults=faults, context=context, log=log, seed=seed)
        for name, (interval_s, faults) in _SCHEDULE.items()
    ]
