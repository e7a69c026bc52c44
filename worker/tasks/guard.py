"""What holds work back in the middle: a stop, a lost claim, a revoke, a deadline."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.errors import Interrupted, Stop

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from worker.config.profiles import Profiles
    from worker.jobs.leases import Claim


def boot_clock_s() -> float:
    """Return seconds on a clock that goes on while the machine sleeps and that cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClaimGuard:
    """Stands beside one claim in one thread; see `worker.http.deadline.Guard`."""

    def __init__(
        self, claim: Claim, *, deadline_s: float, stopping: threading.Event, revoked: Callable[[], bool]
    ) -> None:
        """Guard the claim.

        Args:
            claim: what is worked on.
            deadline_s: when work on it must end, on the boot clock.
            stopping: set when this process is to stop.
            revoked: returns whether an operator revoked the task.
        """
        self.claim = claim
        self.deadline_s = deadline_s
        self.claimed = False
        self.aborts = False
        self.lost = False
        self.acked_bytes = 0
        """Bytes of the content of the request under way that the peer's kernel, or a proxy, has acknowledged."""
        self.size_bytes: int | None = None
        """Of the content that the claim's requests carry; None as long as they carry none."""
        self.sent_bytes = 0
        """The most of it that was acknowledged in one request: a job's reported progress never falls."""
        self.sending_since_s = 0.0
        self.profiles: Profiles | None = None
        """Those that the process had when work on the claim began."""
        self._stopping, self._revoked = stopping, revoked

    def check(self) -> None:
        """Return if the work may go on.

        Raises:
            Interrupted: it may not.
        """
        if self.lost:
            raise Interrupted(Stop.CANCELLED)
        if self._stopping.is_set():
            raise Interrupted(Stop.SHUTDOWN)
        if boot_clock_s() >= self.deadline_s:
            raise Interrupted(Stop.DEADLINE)
        if self._revoked():
            raise Interrupted(Stop.REVOKED)

    def remaining_s(self) -> float:
        """Return the seconds until the deadline; never negative."""
        return max(0.0, self.deadline_s - boot_clock_s())

    def acknowledged(self, size_bytes: int) -> None:
        """Take note of how many bytes of the request's content are acknowledged so far."""
        self.acked_bytes = size_bytes
        if self.size_bytes is not None:
            self.sent_bytes = max(self.sent_bytes, min(size_bytes, self.size_bytes))

    def begin_sending(self, size_bytes: int) -> None:
        """Take note that the next request carries so many bytes of the file."""
        if self.size_bytes is None:
            self.sending_since_s = boot_clock_s()
        self.size_bytes = size_bytes

    def extend(self, seconds: float) -> None:
        """Move the deadline to so many seconds from now, after the lease was extended."""
        self.deadline_s = boot_clock_s() + seconds

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Have the deadline in so many seconds, or where it is if that is sooner, while this lasts."""
        deadline_s = self.deadline_s
        self.deadline_s = min(deadline_s, boot_clock_s() + seconds)
        try:
            yield
        finally:
            self.deadline_s = deadline_s

    def wait(self, seconds: float) -> None:
        """Wait so long, in steps that obey the guard.

        Raises:
            Interrupted: as `check`.
        """
        until_s = boot_clock_s() + seconds
        while (left_s := until_s - boot_clock_s()) > 0:
            self.check()
            self._stopping.wait(min(left_s, 0.25))
        self.check()
