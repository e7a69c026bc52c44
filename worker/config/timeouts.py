"""The durations of the engine, in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from worker.config.profiles import StoreProfile


SLOW_SLICE_S = 2.0


@dataclass(frozen=True, slots=True)
class Timers:
    """Durations in seconds. The first three are settings; only tests scale them, all together.

    Attributes:
        heartbeat_s: interval of a worker's heartbeat.
        dead_after_s: silence after which a worker counts as dead.
        lead_s: lease of the leader; it loses the lead if it does not renew it.
        deadline_s: time limit of a request to a store with shorter timeouts; see `request_limit_s`.
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

    def request_limit_s(self, store: StoreProfile | None = None) -> float:
        """Time limit of a request to the store; a slice has this beside its time at the store's low speed.

        Here and below, ``store`` None means a store whose own timeouts need no more than the least limit.
        """
        own_s = 0.0 if store is None else max(store.connect_timeout_s, store.answer_timeout_s)
        return max(self.deadline_s, self.scale * own_s)

    def init_limit_s(self, store: StoreProfile | None = None) -> float:
        """Time limit of an init: a head, a list of unfinished uploads, the init itself."""
        return 4 * self.request_limit_s(store)

    def finish_limit_s(self, store: StoreProfile | None = None) -> float:
        """Time limit of a finish: the finish itself, and a list before it and the look-ups after it."""
        lookups_s = 4 * self.request_limit_s(store)
        return lookups_s + max(lookups_s, 0.0 if store is None else self.scale * store.finish_timeout_s)

    def abort_limit_s(self, store: StoreProfile | None = None) -> float:
        """Time limit of an abort: look-ups before and after the delete."""
        return 8 * self.request_limit_s(store)

    def scaled(self, scale: float) -> Timers:
        """Return these timers with all durations multiplied by the scale."""
        return Timers(*(scale * duration for duration in dataclasses.astuple(self)))

    def wait(self, delay: timedelta | None) -> timedelta | None:
        """Return the scaled pause before another attempt; None stays None."""
        return None if delay is None else delay * self.scale
