"""The durations of the engine, in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


SLOW_SLICE_S = 2.0


@dataclass(frozen=True, slots=True)
class Timers:
    """Durations in seconds. The first three are settings; only tests scale them, all together.

    Attributes:
        heartbeat_s: interval of a worker's heartbeat.
        dead_after_s: silence after which a worker counts as dead.
        lead_s: lease of the leader; it loses the lead if it does not renew it.
        deadline_s: time limit of a request to the store; a slice has this beside its time at the store's low speed.
        lease_slack_s: the lease of a claim ends so long after its deadline, so that no worker sends after its lease.
        stuck_after_s: the process ends when one of its threads is so long past its deadline: a thread cannot be ended.
        presumed_lost_s: a message is presumed lost when one published so much later has been claimed, or when the
            message is so old and the queue is empty.
        foreign_upload_recheck_s: interval of the checks whether a foreign upload grows.
        probe_s: interval of the probes of an unusable store, and of an abort that a store refuses permanently.
        slice_target_s: how long a slice should take; it sets how many slices share a store's link.
        slow_slice_s: a store with slower slices gets half of the slots at most.
        progress_s: interval at which a worker reports the progress of its slices.
        scale: the factor of all durations, and of the pauses before another attempt.
    """

    heartbeat_s: float
    dead_after_s: float
    lead_s: float
    deadline_s: float = 30.0
    lease_slack_s: float = 15.0
    stuck_after_s: float = 15.0
    presumed_lost_s: float = 5.0
    foreign_upload_recheck_s: float = 5.0
    probe_s: float = 60.0
    slice_target_s: float = 5.0
    slow_slice_s: float = SLOW_SLICE_S
    progress_s: float = 1.0
    scale: float = 1.0

    @property
    def init_limit_s(self) -> float:
        """Time limit of an init: a head, a list of unfinished uploads, the init itself."""
        return 4 * self.deadline_s

    @property
    def finish_limit_s(self) -> float:
        """Time limit of a finish: a list, the finish itself, a head; each request has a shorter limit of its own."""
        return 8 * self.deadline_s

    def scaled(self, scale: float) -> Timers:
        """Return these timers with all durations multiplied by the scale."""
        return Timers(*(scale * duration for duration in dataclasses.astuple(self)))

    def wait(self, delay: timedelta | None) -> timedelta | None:
        """Return the scaled pause before another attempt; None stays None."""
        return None if delay is None else delay * self.scale
