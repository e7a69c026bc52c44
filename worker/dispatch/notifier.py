"""How a worker process notifies the dispatcher that something is due: debounced, so that NOTIFY stays rare."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from worker.db.pool import UNAVAILABLE
from worker.jobs import transitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.db.pool import Database
    from worker.dispatch.wakeup import Wakeup

NOTIFY_INTERVAL_S = 0.01
"""NOTIFY serialises commits: one process sends no more than one in this time, whatever it has done."""


class DispatcherNotifier(threading.Thread):
    """Wakes the dispatcher: directly where it leads in this process, by NOTIFY elsewhere."""

    def __init__(self, db: Database, wakeup: Wakeup, *, leads: Callable[[], bool], taken: Callable[[], int]) -> None:
        """Start with `start`.

        Args:
            db: where NOTIFY goes.
            wakeup: the sleep of this process's leader.
            leads: whether this process leads.
            taken: changes with every message that this process begins to work on.
        """
        super().__init__(name="notifier", daemon=True)
        self._db, self._wakeup, self._leads, self._taken = db, wakeup, leads, taken
        self._asked, self._urgent, self._ended = threading.Event(), threading.Event(), threading.Event()

    def notify_dispatcher(self) -> None:
        """Have the dispatcher tick at once: something new is due. Cheap; safe from any thread."""
        self._urgent.set()
        self._asked.set()

    def slot_freed(self) -> None:
        """A slot is free: the dispatcher is notified only if no message that waits in the broker fills it."""
        self._asked.set()

    def run(self) -> None:
        """Notify the dispatcher when asked, until `end`."""
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._ended.is_set():
                return
            if not self._urgent.is_set() and self._has_taken_a_message():
                continue
            urgent = self._urgent.is_set()
            self._urgent.clear()
            if self._leads():
                self._wakeup.wake(urgent=urgent)
            else:
                # where the database is away, the dispatcher polls a little later
                with suppress(*UNAVAILABLE), self._db.connection() as tx:
                    transitions.wake(tx, urgent=urgent)
            self._ended.wait(NOTIFY_INTERVAL_S)

    def _has_taken_a_message(self) -> bool:
        """Wait a moment, and say whether a message was taken in it."""
        before = self._taken()
        return not self._urgent.wait(NOTIFY_INTERVAL_S) and self._taken() != before

    def end(self) -> None:
        """End the thread."""
        self._ended.set()
        self._asked.set()
        self._urgent.set()
