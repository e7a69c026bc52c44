"""A guard of requests that no claim stands behind: of a check, or a look of the drill's."""

from __future__ import annotations

import time

from worker.errors import Interrupted, Stop


class Patience:
    """A guard that knows of time only."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def check(self) -> None:
        """Return while there is time.

        Raises:
            Interrupted: there is none left.
        """
        if self.remaining_s() <= 0:
            raise Interrupted(Stop.DEADLINE)

    def remaining_s(self) -> float:
        """Return the seconds until the deadline; never negative."""
        return max(0.0, self._until - time.monotonic())

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore how far the request is."""
