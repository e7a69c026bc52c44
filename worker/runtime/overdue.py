"""Whether a thread is stuck: it does not end at its claim's deadline, though the process has had time to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.tasks.guard import ClaimGuard

_LOOKS_LEAST = 4
"""So many looks have to find a thread overdue: one that sees the time before it was frozen says nothing."""


class OverdueWatch:
    """Counts for how long claims are overdue, in time in which this process ran.

    A process that was stopped or whose machine slept wakes up with every deadline long past; its threads are about to
    end by themselves. So the time between two looks counts as a part of the bound at most.
    """

    def __init__(self, stuck_after_s: float) -> None:
        """Take a thread for stuck that is overdue for longer than ``stuck_after_s``."""
        self._stuck_after_s = stuck_after_s
        self._ran_s = 0.0
        self._looked_at_s: float | None = None
        self._since_s: dict[ClaimGuard, float] = {}

    def is_stuck(self, guards: Iterable[ClaimGuard], now_s: float) -> bool:
        """Look at what is being worked on, at a time on a steady clock; says whether any of it is stuck."""
        if self._looked_at_s is not None:
            self._ran_s += min(now_s - self._looked_at_s, self._stuck_after_s / _LOOKS_LEAST)
        self._looked_at_s = now_s
        overdue = [guard for guard in guards if guard.remaining_s() == 0.0]
        self._since_s = {guard: self._since_s.get(guard, self._ran_s) for guard in overdue}
        return any(self._ran_s - since_s > self._stuck_after_s for since_s in self._since_s.values())
