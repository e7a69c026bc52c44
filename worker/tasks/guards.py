"""The claims that one process works on, each with its guard."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.errors import Interrupted, StaleClaim, Stop
from worker.tasks.guard import ClaimGuard, boot_clock_s
from worker.tasks.limiters import SharedExclusiveLock

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from worker.jobs.leases import Claim

DRAIN_POLL_S = 0.02


class Guards:
    """What a process works on now. Safe to be used by its task threads."""

    def __init__(self, stopping: threading.Event, revoked: Callable[[str], bool]) -> None:
        """Begin with no work.

        Args:
            stopping: set when this process is to stop.
            revoked: returns whether an operator revoked the task with this Celery id.
        """
        self.taken = 0
        """How many claims were tried; read to see whether it changes."""
        self.claimed_through: datetime | None = None
        """The latest dispatch of what was claimed: older messages that were not claimed may be lost."""
        self._stopping, self._revoked = stopping, revoked
        self._gate = SharedExclusiveLock()
        self._guards: dict[int, ClaimGuard] = {}

    @contextmanager
    def enter(self, claim: Claim, task_id: str, limit_s: float, *, alone: bool = False) -> Iterator[ClaimGuard]:
        """Stand guard over work on a claim that is about to be made, for ``limit_s`` seconds from now."""
        with self._gate.enter(alone=alone):
            if self._stopping.is_set():
                raise Interrupted(Stop.SHUTDOWN)
            if any(other.claim == claim for other in self.current()):
                raise StaleClaim(f"job {claim.job_id}: another copy of the message is being worked on here")
            guard = ClaimGuard(
                claim,
                deadline_s=boot_clock_s() + limit_s,
                stopping=self._stopping,
                revoked=lambda: self._revoked(task_id),
            )
            self._guards[id(guard)] = guard
            self.taken += 1  # by several threads at once, and one may be lost
            try:
                yield guard
            finally:
                del self._guards[id(guard)]

    def current(self) -> list[ClaimGuard]:
        """Return the guards of what is being worked on now."""
        return list(self._guards.values())

    def drained(self, seconds: float) -> bool:
        """Wait until nothing is being worked on; says whether that came true in time."""
        until_s = boot_clock_s() + seconds
        while self._guards and boot_clock_s() < until_s:
            time.sleep(DRAIN_POLL_S)
        return not self._guards

    def note_claimed(self, dispatched_at: datetime) -> None:
        """Remember how late the messages were published that have been claimed."""
        if self.claimed_through is None or dispatched_at > self.claimed_through:
            self.claimed_through = dispatched_at
