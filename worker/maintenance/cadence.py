"""The cadence of the leader's short duties."""

from __future__ import annotations

import time


class Cadence:
    """Says which duty is due. One thread uses it."""

    def __init__(self) -> None:
        """Begin with every duty due."""
        self._next_s: dict[str, float] = {}

    def is_time(self, duty: str, every_s: float) -> bool:
        """Say whether the duty is due; if it is, the next time is ``every_s`` seconds from now."""
        now_s = time.monotonic()
        if now_s < self._next_s.get(duty, 0.0):
            return False
        self._next_s[duty] = now_s + every_s
        return True

    def restart(self) -> None:
        """Make every duty due now."""
        self._next_s.clear()
