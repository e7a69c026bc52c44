"""A rate limit for the sum of all uploads."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.emulator.config import RuntimeSettings


class Throttle:
    """Limits the sum of all uploads to `rate_bytes_per_s`."""

    def __init__(self, settings: RuntimeSettings, stopping: threading.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._lock = threading.Lock()
        self._busy_until = 0.0

    @property
    def limited(self) -> bool:
        """Whether a limit is set now."""
        return self._settings.rate_bytes_per_s is not None

    def spend(self, size_bytes: int) -> None:
        """Waits until the rate allows these received bytes."""
        rate = self._settings.rate_bytes_per_s
        if rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._busy_until = max(now, self._busy_until) + size_bytes / rate
            wait_s = self._busy_until - now
        self._stopping.wait(wait_s)
