"""How many slices a process holds at once, and how many it sends."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.errors import Interrupted, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.tasks.guard import ClaimGuard


LEAST = 8
"""Enough that the processor is full where it is the limit: some send while others claim, read or record."""


class ResizableSemaphore:
    """Lets in as many at once as its size says, which may change while they are inside.

    Those that go to a slow store have half of it at most: who is soon done does not wait behind them.
    """

    def __init__(self, size: int) -> None:
        self._changed = threading.Condition()
        self._inside = self._slow = 0
        self._size = size

    def resize(self, size: int) -> None:
        """Let in so many from now on; nobody is thrown out."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def busy(self) -> bool:
        """Say whether anybody is inside."""
        return self._inside > 0

    @contextmanager
    def enter(self, guard: ClaimGuard, *, slow: bool = False) -> Iterator[None]:
        """Come in when there is room.

        Raises:
            Interrupted: as the guard's check; or half of the claim's time was waited away, and the store is not to be
                blamed for what is then too late.
        """
        give_up_before_s = guard.remaining_s() / 2
        with self._changed:
            while not self._has_room(slow=slow):
                self._changed.wait(0.25)
                guard.check()
                if guard.remaining_s() <= give_up_before_s:
                    raise Interrupted(Stop.OVERTAKEN)
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
    """Lets work in side by side, or one alone: what has killed workers before runs with nothing else in its process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting_alone = 0

    @contextmanager
    def enter(self, *, alone: bool) -> Iterator[None]:
        """Come in, when there is room: ``alone`` waits until nobody is inside and keeps the others out."""
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
