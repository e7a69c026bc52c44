"""What the clients and operators of a run were told, for those who act on it later."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.chaos.errands import Twist

if TYPE_CHECKING:
    import random

    from tests.faults.chaos.errands import Errand


@dataclass(slots=True)
class Kept:
    """An errand that the service has promised to carry out."""

    errand: Errand
    job: str
    at: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    retries: int = 0


class Told:
    """Every promise, by job; and what should never have been said."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._lock = threading.Lock()
        self.kept: dict[str, Kept] = {}
        self.faults: list[str] = []

    def accepted(self, errand: Errand, job: str) -> None:
        """The service has accepted an errand; the same errand is the same job, however often it is asked for."""
        with self._lock:
            known = self.kept.setdefault(job, Kept(errand, job))
            if known.errand.number != errand.number:
                self.faults.append(f"job {job} was promised to errands {known.errand.number} and {errand.number}")

    def fault(self, text: str) -> None:
        """Something was said or done that should not have been."""
        with self._lock:
            self.faults.append(text)

    def to_cancel(self, younger_than_s: float) -> list[Kept]:
        """Those that an operator should cancel by now: each at an age of its own, below the given one."""
        now = time.monotonic()
        with self._lock:
            return [
                kept
                for kept in self.kept.values()
                if kept.errand.twist is Twist.CANCEL
                and not kept.cancelled
                and now - kept.at >= younger_than_s * (kept.errand.number % 97) / 97
            ]

    def some(self, chance: random.Random, count: int) -> list[Kept]:
        """A few of them, the latest most likely."""
        with self._lock:
            latest = list(self.kept.values())[-20 * count :]
        return chance.sample(latest, min(count, len(latest)))
