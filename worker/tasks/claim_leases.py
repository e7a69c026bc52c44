"""How long a claim lasts: as long as the timeouts of the job's store need."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from worker.config.timeouts import Timers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.config.profiles import StoreProfile

Limit = Callable[[Timers, "StoreProfile | None"], float]
"""The time limit of a kind of task; a store's, or the least one: a claim tells the store."""


class ClaimLeases:
    """The leases of one installation's claims."""

    def __init__(self, timers: Timers, stores: Mapping[str, StoreProfile]) -> None:
        """Begin with none.

        Args:
            timers: of the installation.
            stores: by name.
        """
        self._timers = timers
        self.stores = stores
        """The profiles that these leases are long enough for: deadlines are set by the same."""
        self._longer: dict[Limit, dict[str, float]] = {}
        self.low_speed_bytes_per_s = min((store.low_speed_bytes_per_s for store in stores.values()), default=1)
        """The lowest of all stores: a slice's claim tells the store."""
        self.slice_slack_s = timers.lease_slack_s + max(
            map(timers.request_limit_s, stores.values()), default=timers.deadline_s
        )
        """What the lease of a slice has beside its time at that speed."""

    def of_step(self, limit: Limit) -> tuple[timedelta, Mapping[str, float]]:
        """Return the lease of a step that has this limit, and the longer ones: seconds by store."""
        least_s, slack_s = limit(self._timers, None), self._timers.lease_slack_s
        if limit not in self._longer:
            limits = {name: limit(self._timers, profile) for name, profile in self.stores.items()}
            self._longer[limit] = {name: own_s + slack_s for name, own_s in limits.items() if own_s > least_s}
        return timedelta(seconds=least_s + slack_s), self._longer[limit]
