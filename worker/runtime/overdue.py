"""Whether a thread is stuck: it does not end at its claim's deadline, though the process has had time to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.tasks.guard import ClaimGuard

_MIN_CHECKS = 4
"""So many checks have to find a thread overdue: a clock that was read before a freeze proves nothing."""


class OverdueWatch:
    """Counts for how long claims are overdue, in time in which this process ran.

    A process that was stopped or whose machine slept wakes up with every deadline long past; its threads are about to
    end by themselves. So the time between two checks counts as a part of the bound at most.
    """

    def __init__(self, stuck_after_s: float) -> None:
        """Take a thread for stuck that is overdue for longer than ``stuck_after_s``."""
        self._stuck_after_s = stuck_after_s
        self._ran_s = 0.0
        self._checked_at_s: float | None = None
        self._since_s: dict[ClaimGuard, float] = {}

    def is_stuck(self, guards: Iterable[ClaimGuard], now_s: float) -> bool:
        """Check the claims under way, at a time on a steady clock; return whether any thread is stuck."""
        if self._checked_at_s is not None:
            self._ran_s += min(now_s - self._checked_at_s, self._stuck_after_s / _MIN_CHECKS)
        self._checked_at_s = now_s
        overdue = [guard for guard in guards if guard.remaining_s() == 0.0]
        self._since_s = {guard: self._since_s.get(guard, self._ran_s) for guard in overdue}
        return any(self._ran_s - since_s > self._stuck_after_s for since_s in self._since_s.values())
