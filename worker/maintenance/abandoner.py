"""Abandoned jobs: the leader ends them without a request to their store.

An operator abandons a job whose store is not worth the wait. It ends as soon as no request of it can be under way; see
`worker/jobs/sql/end_abandoned.sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs import transitions
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from worker.config.profiles import Profiles, StoreProfile
    from worker.config.settings import Settings
    from worker.db.pool import Connection


class Abandoner:
    """Ends abandoned jobs. One thread uses it."""

    def __init__(self, settings: Settings) -> None:
        """Take the longest lease of each kind of claim, over all stores."""
        self._timers, self._live = settings.timers, settings.live_profiles
        self._profiles = self._live.profiles
        self._stores: list[StoreProfile] = []
        self._add(self._profiles)

    def _add(self, profiles: Profiles) -> None:
        """Take the longest leases also of these profiles: a claim outlasts the reload that replaces its profile."""
        self._profiles = profiles
        self._stores += (store for store in profiles.stores.values() if not any(store is each for each in self._stores))
        timers, stores = self._timers, self._stores
        self._longest = transitions.LongestLeases(
            init_s=timers.lease_slack_s + max(map(timers.init_limit_s, (None, *stores))),
            finish_s=timers.lease_slack_s + max(map(timers.finish_limit_s, (None, *stores))),
            slice_slack_s=timers.lease_slack_s + max(map(timers.request_limit_s, (None, *stores))),
            low_speed_bytes_per_s=min((store.low_speed_bytes_per_s for store in stores), default=1),
        )

    def end_abandoned(self, tx: Connection) -> None:
        """End the abandoned jobs of which no request can be under way."""
        if (profiles := self._live.profiles) is not self._profiles:
            self._add(profiles)
        for job_id in transitions.end_abandoned(tx, self._longest):
            emit("job.abandoned", job_id=job_id)
