"""Whether a store has room for one more request: its caps, what is out, and which cap is reached. Pure.

The dispatcher selects by it, and `worker/jobs/why.py` explains by it: one rule, so that the two cannot disagree.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.jobs.links import Link

Lane = tuple[str, str]
"""A store and a tenant."""

ENDING_FIRST: Mapping[str, int] = {
    JobState.FINISHING: 0,
    JobState.CANCELLING: 0,
    JobState.UPLOADING: 1,
    JobState.QUEUED: 2,
}
"""The order of states among equal priorities: what ends a job, then slices, then new jobs."""


class Load(NamedTuple):
    """What is out to a store for a tenant: steps and slices dispatched or worked on, and those that carry content."""

    requests: int
    carrying: int


class Cap(StrEnum):
    """The caps of a store, and that of a tenant."""

    PROBE = "probe"
    """Its breaker is open: one request is out, the probe."""
    STORE = "store"
    """`max_in_flight` of its profile, or what an operator allows it, if that is less."""
    TENANT = "tenant"
    """What an operator allows the tenant, over all stores."""
    UNKNOWN_LINK = "unknown_link"
    """How fast its link is, is not known before it has answered once."""
    LINK = "link"
    """As many requests with content as its link carries."""
    SLOW_SHARE = "slow_share"
    """The slots that all slow stores together may hold."""


class Reached(NamedTuple):
    """A cap: how many requests are out under it, and how many may be."""

    cap: Cap
    out: int
    most: int


@dataclass(frozen=True, slots=True)
class OperatorCaps:
    """How many requests operators allow at once, by store and by tenant; a missing one has no such cap."""

    stores: Mapping[str, int] = field(default_factory=dict)
    tenants: Mapping[str, int] = field(default_factory=dict)

    def over(self, profiles: Mapping[str, int]) -> Mapping[str, int]:
        """Return the caps of stores: the lower of the profile's and the operator's."""
        if not self.stores:
            return profiles
        return {**profiles, **{store: min(most, profiles.get(store, most)) for store, most in self.stores.items()}}


NO_CAPS = OperatorCaps()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be out.

    Attributes:
        free: how many steps and slices may be dispatched now.
        slots: what all live workers can work on at once.
        stores: store -> requests of any kind that may be out to it at once; a missing one has no such limit.
        links: store -> its link, by which requests with content are bounded; a missing one is not known yet.
        probed: stores of which nothing but one request is to go out.
        slice_target_s: so long a slice should take; see `worker.config.timeouts`.
        slow_slice_s: a store whose slices take longer is slow.
        tenants: tenant -> requests of any kind that may be out for it at once; a missing one has no such limit.
    """

    free: int
    slots: int
    stores: Mapping[str, int]
    links: Mapping[str, Link]
    probed: frozenset[str] = frozenset()
    slice_target_s: float = 5.0
    slow_slice_s: float = 2.0
    tenants: Mapping[str, int] = field(default_factory=dict)

    def is_slow(self, store: str) -> bool:
        """Say whether the store's slices hold a slot for so long that it may not have all of them."""
        link = self.links.get(store)
        return link is not None and link.answer_s > self.slow_slice_s

    @property
    def slow_share(self) -> int:
        """How many slots all slow stores together may hold: the others are for stores that answer soon."""
        return max(1, self.slots // 2)


class Out:
    """What is out to each store and for each tenant; it grows while the dispatcher chooses."""

    def __init__(self, limits: Limits, in_flight: Mapping[Lane, Load]) -> None:
        self._limits = limits
        self.of_tenant: Counter[str] = Counter()
        self.of_store: Counter[str] = Counter()
        self._carrying: Counter[str] = Counter()
        for (store, tenant), load in in_flight.items():
            self.of_tenant[tenant] += load.requests
            self.of_store[store] += load.requests
            self._carrying[store] += load.carrying
        self._slow = sum(count for store, count in self._carrying.items() if limits.is_slow(store))

    def add(self, store: str, tenant: str, *, carries: bool) -> None:
        """Count a request that is dispatched now."""
        self.of_tenant[tenant] += 1
        self.of_store[store] += 1
        self._carrying[store] += carries
        self._slow += carries and self._limits.is_slow(store)

    def reached(
        self, store: str, tenant: str | None, carried_bytes: int | None, *, carries: bool, before: int = 0
    ) -> Cap | None:
        """Return the cap that leaves no room for one more request to the store; None: there is room.

        A tick of the dispatcher asks this for hundreds of items: `figures` has the numbers.

        ``tenant``: None where it is not known, as of many jobs of several tenants that have no cap.
        ``carries``: whether it sends bytes of the file; ``carried_bytes``: how many, None where that is not known yet.
        ``before``: how many requests of the same kind to the store go first.
        """
        limits = self._limits
        most = 1 if store in limits.probed else limits.stores.get(store)
        if most is not None and self.of_store[store] + before >= most:
            return Cap.PROBE if store in limits.probed else Cap.STORE
        most = None if tenant is None else limits.tenants.get(tenant)
        if tenant is not None and most is not None and self.of_tenant[tenant] + before >= most:
            return Cap.TENANT
        if not carries:
            return None
        link = limits.links.get(store)
        if link is None:  # how fast it is, is not known before it has answered once
            return Cap.UNKNOWN_LINK if self._carrying[store] + before else None
        if limits.is_slow(store) and self._slow + before >= limits.slow_share:
            return Cap.SLOW_SHARE
        most = link.in_flight(carried_bytes, limits.slice_target_s)
        return Cap.LINK if self._carrying[store] + before >= most else None

    def figures(self, cap: Cap, store: str, tenant: str | None, carried_bytes: int | None) -> Reached:
        """Return how many requests are out under a cap of a store or tenant, and how many may be."""
        limits = self._limits
        match cap:
            case Cap.STORE:
                return Reached(cap, self.of_store[store], limits.stores[store])
            case Cap.TENANT:
                return Reached(cap, self.of_tenant[str(tenant)], limits.tenants[str(tenant)])
            case Cap.SLOW_SHARE:
                return Reached(cap, self._slow, limits.slow_share)
            case Cap.LINK:
                most = limits.links[store].in_flight(carried_bytes, limits.slice_target_s)
                return Reached(cap, self._carrying[store], most)
            case _:
                return Reached(cap, self._carrying[store] if cap is Cap.UNKNOWN_LINK else self.of_store[store], 1)
