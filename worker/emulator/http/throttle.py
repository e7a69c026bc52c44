"""One bandwidth limit for all uploads together."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.emulator.config import RuntimeSettings


class Throttle:
    """Holds the sum of all uploads to a number of bytes a second."""

    def __init__(self, settings: RuntimeSettings, stopping: threading.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._lock = threading.Lock()
        self._paid_until = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at the moment."""
        return self._settings.rate_bytes_per_s is not None

    def spend(self, size_bytes: int) -> None:
        """Returns when these bytes, already received, are paid for."""
        rate = self._settings.rate_bytes_per_s
        if rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(now, self._paid_until) + size_bytes / rate
            wait_s = self._paid_until - now
        self._stopping.wait(wait_s)
