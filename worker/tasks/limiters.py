"""How many slices a process holds at once, and how many it sends."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.errors import Interrupted, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.tasks.guard import ClaimGuard


MIN_SLOTS = 8
"""Enough that the processor is full where it is the limit: some send while others claim, read or record."""


class ResizableSemaphore:
    """Grants as many slots at once as its size says, which may change while slots are held.

    Slices to a slow store hold half of them at most: those to a fast store do not wait behind them.
    """

    def __init__(self, size: int) -> None:
        self._changed = threading.Condition()
        self._inside = self._slow = 0
        self._size = size

    def resize(self, size: int) -> None:
        """Grant so many from now on; a slot that is held stays held."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def busy(self) -> bool:
        """Return whether any slot is held."""
        return self._inside > 0

    @contextmanager
    def enter(self, guard: ClaimGuard, *, slow: bool = False) -> Iterator[None]:
        """Hold a slot; waits until one is free.

        Raises:
            Interrupted: as the guard's check; or half of the claim's time was waited away, and the store is not to be
                blamed for a slice that is then too late.
        """
        give_up_before_s = guard.remaining_s() / 2
        with self._changed:
            while not self._has_room(slow=slow):
                self._changed.wait(0.25)
                guard.check()
                if guard.remaining_s() <= give_up_before_s:
                    raise Interrupted(Stop.SLOT_WAIT_TIMEOUT)
            self._inside += 1
            self._slow += slow
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._slow -= slow
                self._changed.notify_all()

    def _has_room(self, *, slow: bool) -> bool:
        return self._inside < self._size and (not slow or self._slow < max(1, self._size // 2))


class SharedExclusiveLock:
    """Held side by side, or by one alone: a job that has killed workers runs with nothing else in its process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting_alone = 0

    @contextmanager
    def enter(self, *, alone: bool) -> Iterator[None]:
        """Hold the lock: ``alone`` waits until no other holds it and keeps the others waiting."""
        with self._changed:
            self._waiting_alone += alone
            self._changed.wait_for(lambda: self._room(alone=alone))
            self._waiting_alone -= alone
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()

    def _room(self, *, alone: bool) -> bool:
        if alone:
            return self._inside == 0
        return not self._alone and self._waiting_alone == 0
