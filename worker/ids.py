"""Ids: job ids that sort by time, and task ids that stay the same across attempts."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = UUID("6f0b7f52-3d0e-4f0c-9a53-5b5b8f6d2c11")  # any namespace of our own


class Stamps:
    """Strictly increasing timestamps, even if the clock goes back. Thread-safe."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Read Unix nanoseconds from ``clock_ns``."""
        self._clock_ns = clock_ns
        self._last = 0
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return Unix milliseconds in the upper bits, and 1/4096 of a millisecond in the lower 12."""
        now = (self._clock_ns() << 12) // 1_000_000
        with self._lock:
            self._last = max(now, self._last + 1)
            return self._last


_STAMPS = Stamps()


def new_id() -> UUID:
    """Return a UUIDv7 that sorts after all earlier ones of this process, so that jobs of a batch start in order.

    48 bits of Unix milliseconds, 12 bits of their fraction, 62 random bits (RFC 9562, section 6.2, method 3).
    """
    stamp = _STAMPS.take()
    value = stamp >> 12 << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0x2 << 62
    return UUID(int=value | int.from_bytes(os.urandom(8)) >> 2)


def task_id(job_id: UUID, part: str, epoch: int, run: int) -> str:
    """Return the Celery id of a job's step or slice, the same for all its attempts.

    ``part`` is the step's name or the slice's number. ``run`` grows with an operator's retry and after a revoke,
    because a worker discards every later message with a revoked id.
    """
    return str(uuid5(TASKS, f"{job_id}/{part}/{epoch}/{run}"))
