"""What runs next, out of what could: priority first, then fairness between tenants and stores, then age. Pure."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from worker.jobs.due import Load
    from worker.jobs.links import Link
    from worker.jobs.rows import DueItem

Lane = tuple[str, str]

_ENDING_FIRST: Mapping[str, int] = {
    JobState.FINISHING: 0,
    JobState.CANCELLING: 0,
    JobState.UPLOADING: 1,
    JobState.QUEUED: 2,
}


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
    """

    free: int
    slots: int
    stores: Mapping[str, int]
    links: Mapping[str, Link]
    probed: frozenset[str] = frozenset()
    slice_target_s: float = 5.0
    slow_slice_s: float = 2.0

    def is_slow(self, store: str) -> bool:
        """Say whether the store's slices hold a slot for so long that it may not have all of them."""
        link = self.links.get(store)
        return link is not None and link.answer_s > self.slow_slice_s

    @property
    def slow_share(self) -> int:
        """How many slots all slow stores together may hold: the others are for stores that answer soon."""
        return max(1, self.slots // 2)


def choose(due: Iterable[DueItem], *, limits: Limits, in_flight: Mapping[Lane, Load]) -> list[DueItem]:
    """Choose some of the due steps and slices.

    Among equal priorities the tenant with the least in flight goes first, so a tenant with a million jobs takes no more
    than its share from one with two; within a tenant its store with the least in flight, so a store that takes long
    does not hold up another. Within both what ends a job comes before slices, slices before new jobs, and older jobs
    before younger ones.

    Args:
        due: steps and slices that could be dispatched now.
        limits: how much may be out.
        in_flight: (store, tenant) -> what is out already.
    """
    queues: defaultdict[Lane, deque[DueItem]] = defaultdict(deque)
    for item in sorted(due, key=_order):
        queues[item.store, item.tenant].append(item)
    out = _Out(limits, in_flight)
    heap = [out.turn(lane, queue[0]) for lane, queue in queues.items()]
    heapq.heapify(heap)
    chosen: list[DueItem] = []
    while heap and len(chosen) < limits.free:
        turn = heapq.heappop(heap)
        lane = turn[-1]
        item = queues[lane][0]
        if turn != (now := out.turn(lane, item)):  # others of its tenant or store were chosen meanwhile
            heapq.heappush(heap, now)
            continue
        queues[lane].popleft()
        if out.has_room(item):
            chosen.append(item)
            out.add(item)
        if queues[lane]:
            heapq.heappush(heap, out.turn(lane, queues[lane][0]))
    return chosen


class _Out:
    """What is out, with what was chosen."""

    def __init__(self, limits: Limits, in_flight: Mapping[Lane, Load]) -> None:
        self._limits = limits
        self._of_tenant: Counter[str] = Counter()
        self._of_store: Counter[str] = Counter()
        self._carrying: Counter[str] = Counter()
        for (store, tenant), load in in_flight.items():
            self._of_tenant[tenant] += load.requests
            self._of_store[store] += load.requests
            self._carrying[store] += load.carrying
        self._slow = sum(count for store, count in self._carrying.items() if limits.is_slow(store))

    def turn(self, lane: Lane, item: DueItem) -> tuple[int, int, int, UUID, int, Lane]:
        """Return what a lane's first item is compared by; it only grows while rows are chosen."""
        store, tenant = lane
        return (
            item.priority, self._of_tenant[tenant], self._of_store[store], item.job_id, item.number or 0, lane,
        )  # fmt: skip

    def has_room(self, item: DueItem) -> bool:
        """Say whether the item's store may have one more."""
        store = item.store
        most = 1 if store in self._limits.probed else self._limits.stores.get(store)
        if most is not None and self._of_store[store] >= most:
            return False
        if not item.carries:
            return True
        link = self._limits.links.get(store)
        if link is None:  # how fast it is, is not known before it has answered once
            return self._carrying[store] == 0
        if self._limits.is_slow(store) and self._slow >= self._limits.slow_share:
            return False
        return self._carrying[store] < link.in_flight(item.carried_bytes, self._limits.slice_target_s)

    def add(self, item: DueItem) -> None:
        """Count a item that was chosen."""
        store = item.store
        self._of_tenant[item.tenant] += 1
        self._of_store[store] += 1
        self._carrying[store] += item.carries
        self._slow += item.carries and self._limits.is_slow(store)


def _order(item: DueItem) -> tuple[int, int, UUID, int]:
    return item.priority, _ENDING_FIRST[item.state], item.job_id, item.number or 0
