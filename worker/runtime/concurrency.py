"""How many slices a process sends at once: as many as pay. Pure; `worker.runtime.heartbeat` measures and resizes.

A store that answers late wants many requests under way; a link or a processor that is full gains nothing from them, and
what a crash cuts off has to be sent again. So the number grows while slices take hardly longer with more of them side
by side, and shrinks when they do.
"""

from __future__ import annotations

import math

from worker.tasks.limiters import MIN_SLOTS

MAX_SLOTS = 16
"""More of them pay nowhere that was measured, and what a crash cuts off has to be sent again."""

MAX_IN_MEMORY = 20
"""A process holds no more slices in memory, sent and ahead; at 3 MiB each it stays below 150 MiB."""
MIN_PREFETCH = 4
_SHORT_S = 1.0
"""Where a slice takes no longer, what is claimed ahead is not kept from others for long."""
_BUSY = 0.75
"""A process with fewer of its slots in use lacks work, not slots."""
_HOLD_TICKS = 20
"""For so many ticks a number that did not pay is not tried again."""
_REST_TICKS = 60
"""After so many ticks without enough work the next upload is measured anew."""
_LATEST_WEIGHT = 0.5
"""Weight of the latest tick in the seconds that a slice takes."""


def most_tasks(fixed: int | None) -> int:
    """Return how many slices a process may be given at once, with so many slots or as many as pay."""
    return max(now + _prefetch(now) for now in ([fixed] if fixed else range(MIN_SLOTS, MAX_SLOTS + 1)))


def _prefetch(slots: int) -> int:
    return min(slots, max(MIN_PREFETCH, MAX_IN_MEMORY - slots)) if slots > 1 else 0


class Slots:
    """The number of slots of one process, by what its slices take in the store's hands."""

    def __init__(self, fixed: int | None = None, *, ahead: bool = True) -> None:
        """Begin with the smallest number.

        Args:
            fixed: the operator's own number, which nothing changes.
            ahead: the pool has threads for what is claimed ahead.
        """
        self._ahead = ahead
        self.least = self.now = fixed or MIN_SLOTS
        self._most = fixed or MAX_SLOTS
        self._alone_s: float | None = None
        self._hold = self._idle = 0
        self._short = False

    @property
    def prefetch(self) -> int:
        """How many more are claimed, read or recorded meanwhile, so that a slot never waits for its next slice.

        As many as there are slots: a checkpoint that waits for its group may take as long as a store that answers in
        20 ms. None with a single slot: that setting asks for one slice at a time, as the drill's canary does.
        """
        return _prefetch(self.now) if self._short and self._ahead else 0

    def observe(self, busy: int, took_s: float | None) -> int:
        """Return the slots from now on, by what was measured since the last tick.

        Args:
            busy: how many are in use.
            took_s: what a slice took to be sent and answered, on average; None if too few were.
        """
        if busy < _BUSY * self.now:
            self._idle += 1
            if self._idle >= _REST_TICKS:
                self.now, self._alone_s, self._short = self.least, None, False
            return self.now
        self._idle = 0
        if took_s is None:
            return self.now
        self._short = took_s <= _SHORT_S
        if self.now == self.least:
            before_s = self._alone_s or took_s
            self._alone_s = (1 - _LATEST_WEIGHT) * before_s + _LATEST_WEIGHT * took_s
        step = max(1, self.now // 4)
        if self.now > self.least and not self._pays(took_s):
            self.now, self._hold = max(self.least, self.now - step), _HOLD_TICKS
        elif self._hold:
            self._hold -= 1
        else:
            self.now = min(self._most, self.now + step)
        return self.now

    def _pays(self, took_s: float) -> bool:
        """Say whether as many slots as now bring at least half, in logarithms, of what they could."""
        growth: float = self.now / self.least
        return growth * (self._alone_s or took_s) >= took_s * math.sqrt(growth)
