"""The pool of threads in which Celery runs our tasks; it wakes the worker's event loop when that waits for a thread.

Written for Celery 5.7 (`BasePool`, `apply_target`, `reserved_requests`: the worker fetches while `num_processes` is
above their number) and kombu 5.7 (`get_event_loop`, `Hub.call_soon`).
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool, apply_target
from celery.worker.state import reserved_requests
from kombu.asynchronous import get_event_loop

from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger(__name__)


class TaskPool(BasePool):  # type: ignore[misc]
    """Threads, made as they are needed, and fewer tasks let in than there may be threads.

    Celery's own is made of futures: locks and conditions for results that are never read.

    The event loop fetches nothing while every slot is busy (`worker_disable_prefetch`), and does not ask before
    something wakes it: without this pool, its next timer.
    """

    body_can_be_buffer = True
    signal_safe = False
    slots: int | None = None
    """How many tasks run at once; None: as many as there may be threads."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle: deque[None] = deque()
        self._threads: list[Thread] = []
        self._full = False

    @property
    def num_processes(self) -> int:
        """What Celery asks before it fetches; if it then finds all slots busy, the next end of a task wakes it."""
        slots = self.slots or int(self.limit)
        self._full = True  # first: a task that ends between the two lines wakes the loop, if for nothing
        self._full = len(reserved_requests) >= slots
        return slots

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        **_: Any,
    ) -> None:
        """Run a task in Celery's own way."""
        self.submit(partial(apply_target, target, args, kwargs, callback, accept_callback))

    def submit(self, work: Callable[[], None]) -> None:
        """Run this in the next free thread."""
        self._work.put(work)
        try:
            self._idle.pop()
        except IndexError:
            if len(self._threads) < self.limit:
                thread = Thread(target=self._run, name=f"task-{len(self._threads) + 1}")
                self._threads.append(thread)
                thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except BaseException:
                log.exception("task.untold")
            del work
            self._idle.append(None)
            if self._full:
                self._full = False
                _wake()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: no thread can be ended. The revoke that comes with it makes the task stop by itself."""

    def on_stop(self) -> None:
        """End the threads and wait for them, and for what they run."""
        self.on_terminate()
        for thread in self._threads:
            thread.join()

    def on_terminate(self) -> None:
        """End the threads as soon as they have nothing left to run."""
        for _ in self._threads:
            self._work.put(None)

    def _get_info(self) -> dict[str, object]:
        # monitors count what serves a queue by the ids of its processes
        return {**super()._get_info(), "processes": [os.getpid()], "threads": len(self._threads)}


def _wake() -> None:
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(_no_op)


def _no_op() -> None:
    """Nothing: that the loop turns is all."""
