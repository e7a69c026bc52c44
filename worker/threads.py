"""Celery's pool of threads, which also tells the worker's event loop when a thread is free again."""

from __future__ import annotations

from typing import Any

from celery.concurrency.thread import TaskPool as ThreadPool
from kombu.asynchronous import get_event_loop


class TaskPool(ThreadPool):  # type: ignore[misc]
    """Wakes the event loop at the end of a task, and lets fewer tasks in than it has threads.

    Nothing is fetched while every slot is busy (`worker_disable_prefetch`), and the loop looks again only when
    something wakes it: without this, at its next timer.
    """

    slots: int | None = None
    """How many tasks run at once; None: as many as there are threads."""

    @property
    def num_processes(self) -> int:
        """What Celery asks before it fetches."""
        return self.slots or self.limit

    def on_apply(self, *args: Any, **options: Any) -> Any:
        """Hand a task to the next free thread."""
        result = super().on_apply(*args, **options)
        hub = get_event_loop()
        if hub is not None:
            result.f.add_done_callback(lambda _: hub.call_soon(_look))
        return result


def _look() -> None:
    """Nothing: that the loop turns is all."""
