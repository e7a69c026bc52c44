"""The durations that the engine goes by, in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


SLOW_SLICE_S = 2.0


@dataclass(frozen=True, slots=True)
class Timers:
    """Durations in seconds. The first three can be set; all of them are scaled together in tests only.

    Attributes:
        heartbeat_s: how often a worker says that it lives.
        dead_after_s: silence after which a worker counts as dead.
        lead_s: how long a dispatcher leads without renewing.
        deadline_s: time that a request to the store has; a slice has it beside the time at the store's low speed.
        lease_slack_s: how much longer than its deadline a claim is leased: nothing is sent under a lapsed lease.
        stuck_after_s: how long past its deadline a thread may be, while its process runs, before the process is ended:
            threads cannot be.
        overtaken_s: a message is taken for lost when one published so much later was claimed, or when it is so old and
            none is left.
        foreign_upload_recheck_s: time between two looks at an upload that is not ours, to see whether it grows.
        probe_s: how often a store that is unusable is tried, and an abort that a store refuses for good.
        slice_target_s: how long a slice should take while others share the link with it: so many are in flight.
        slow_slice_s: a store whose slices take longer leaves half of the slots to others.
        progress_s: how often a worker reports how far what it sends is.
        scale: what all were multiplied by; waits before another attempt are, too.
    """

    heartbeat_s: float
    dead_after_s: float
    lead_s: float
    deadline_s: float = 30.0
    lease_slack_s: float = 15.0
    stuck_after_s: float = 15.0
    overtaken_s: float = 5.0
    foreign_upload_recheck_s: float = 5.0
    probe_s: float = 60.0
    slice_target_s: float = 5.0
    slow_slice_s: float = SLOW_SLICE_S
    progress_s: float = 1.0
    scale: float = 1.0

    @property
    def init_limit_s(self) -> float:
        """Time for an init: a look, what is unfinished there, the init itself."""
        return 4 * self.deadline_s

    @property
    def finish_limit_s(self) -> float:
        """Time for a finish: a list, the finish itself, a look; each has a shorter limit of its own."""
        return 8 * self.deadline_s

    def scaled(self, scale: float) -> Timers:
        """Return all durations multiplied."""
        return Timers(*(scale * duration for duration in dataclasses.astuple(self)))

    def wait(self, delay: timedelta | None) -> timedelta | None:
        """Return how long to wait before another attempt; None stays none."""
        return None if delay is None else delay * self.scale
