"""The guard of a request, which ends it at a stop or at a deadline, and a guard that has a deadline only."""

from __future__ import annotations

import time
from typing import Protocol

from worker.errors import Interrupted, Stop


class Deadline:
    """A guard with a deadline and no other reason to stop."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def check(self) -> None:
        """Return if the deadline is not over.

        Raises:
            Interrupted: the deadline is over.
        """
        if self.remaining_s() <= 0:
            raise Interrupted(Stop.DEADLINE)

    def remaining_s(self) -> float:
        """Return the seconds until the deadline; never negative."""
        return max(0.0, self._until - time.monotonic())

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore the progress."""


class Guard(Protocol):
    """Checked between the pieces of a request, so that a stop, a cancel or a deadline ends it early."""

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            Interrupted: the work must stop.
        """

    def remaining_s(self) -> float:
        """Return the seconds until the deadline; never negative."""

    def acknowledged(self, size_bytes: int) -> None:
        """Receive how many bytes of the request's content the peer's kernel, or a proxy, has acknowledged."""
