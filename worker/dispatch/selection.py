"""What runs next, out of what could: priority first, then fairness between tenants and stores, then age. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from typing import TYPE_CHECKING

from worker.jobs.room import ENDING_FIRST, Out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from worker.jobs.room import Lane, Limits, Load
    from worker.jobs.rows import DueItem


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
    out = Out(limits, in_flight)
    heap = [_turn(out, lane, queue[0]) for lane, queue in queues.items()]
    heapq.heapify(heap)
    chosen: list[DueItem] = []
    while heap and len(chosen) < limits.free:
        turn = heapq.heappop(heap)
        lane = turn[-1]
        item = queues[lane][0]
        if turn != (now := _turn(out, lane, item)):  # others of its tenant or store were chosen meanwhile
            heapq.heappush(heap, now)
            continue
        queues[lane].popleft()
        if out.reached(item.store, item.tenant, item.carried_bytes, carries=item.carries) is None:
            chosen.append(item)
            out.add(item.store, item.tenant, carries=item.carries)
        if queues[lane]:
            heapq.heappush(heap, _turn(out, lane, queues[lane][0]))
    return chosen


def _turn(out: Out, lane: Lane, item: DueItem) -> tuple[int, int, int, UUID, int, Lane]:
    """Return what a lane's first item is compared by; it only grows while rows are chosen."""
    store, tenant = lane
    return item.priority, out.of_tenant[tenant], out.of_store[store], item.job_id, item.number or 0, lane


def _order(item: DueItem) -> tuple[int, int, UUID, int]:
    return item.priority, ENDING_FIRST[item.state], item.job_id, item.number or 0
