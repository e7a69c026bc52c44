"""Celery's control commands that would stop a worker's work unseen, or do nothing: each is refused, with what to do.

The refusal is the command's answer (Flower shows it) and a line in the worker's log. The other commands are Celery's.
Written for Celery 5.7: the names of its commands, and `Panel.data`, which holds them.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.worker.control import Panel, nok

from worker.jobs.task_names import QUEUE
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger(__name__)
_THREADS = "the number of threads is no command's: set SLICEWAY_WORKER_THREADS and restart the worker"
REFUSED = {
    "pool_grow": _THREADS,
    "pool_shrink": _THREADS,
    "autoscale": _THREADS,
    "pool_restart": "threads are not restarted: send the command shutdown, and the worker's parent starts it anew",
    "add_consumer": f"a worker takes messages of the queue {QUEUE} only",
    "cancel_consumer": f"a worker always takes messages of the queue {QUEUE}: pause the jobs, or stop the worker",
    "rate_limit": "tasks are not limited by Celery: set max_in_flight of the store in the stores file",
    "time_limit": "tasks are not limited by Celery: set answer_timeout_s and the like of the store in the stores file",
}
"""The commands, and why not."""


def register() -> None:
    """Have the workers of this process refuse them."""
    Panel.data.update({name: _refusing(name, why) for name, why in REFUSED.items()})


def _refusing(name: str, why: str) -> Callable[..., Any]:
    def refuse(_state: Any, **_arguments: Any) -> Any:
        log.warning("control.refused", command=name, why=why)
        return nok(f"refused: {why}")

    return refuse
