"""How long a request may take: what stores ask between its pieces, and a guard that no claim stands behind."""

from __future__ import annotations

import time
from typing import Protocol

from worker.errors import Interrupted, Stop


class Deadline:
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


class Guard(Protocol):
    """Asked between the pieces of a request, so that a stop, a cancel or a deadline is obeyed in the middle of it."""

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            Interrupted: it may not.
        """

    def remaining_s(self) -> float:
        """Return the seconds until the deadline; never negative."""

    def acknowledged(self, size_bytes: int) -> None:
        """Take note of how many bytes of the request's content the peer (its kernel, or a proxy) has acknowledged."""
