"""What runs next, out of what could: priority first, then fairness between tenants, then age. Pure."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any

from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Row = dict[str, Any]
Lane = tuple[str, str]

_ENDING_FIRST = {JobState.FINISHING: 0, JobState.CANCELLING: 0, JobState.UPLOADING: 1, JobState.QUEUED: 2}


def choose(due: Iterable[Row], *, free: int, in_flight: Mapping[Lane, int], store_caps: Mapping[str, int]) -> list[Row]:
    """Choose at most ``free`` of the due steps and slices.

    Among equal priorities the tenant with the least in flight goes first, so a tenant with a million jobs takes no more
    than its share from one with two. Within a tenant what ends a job comes before slices, slices before new jobs, and
    older jobs before younger ones.

    Args:
        due: rows with `job_id`, `number` (None for a step), `store`, `tenant`, `priority`, `state`.
        free: how many may be handed out.
        in_flight: (store, tenant) -> what is out already.
        store_caps: store -> the most that may be out to it at once.
    """
    queues: defaultdict[str, deque[Row]] = defaultdict(deque)
    for row in sorted(due, key=_order):
        queues[row["tenant"]].append(row)
    of_tenant: Counter[str] = Counter()
    of_store: Counter[str] = Counter()
    for (store, tenant), count in in_flight.items():
        of_tenant[tenant] += count
        of_store[store] += count
    heap = [_turn(queue[0], of_tenant[tenant]) for tenant, queue in queues.items()]
    heapq.heapify(heap)
    chosen: list[Row] = []
    while heap and len(chosen) < free:
        tenant = heapq.heappop(heap)[-1]
        row = queues[tenant].popleft()
        if of_store[row["store"]] < store_caps[row["store"]]:
            chosen.append(row)
            of_tenant[tenant] += 1
            of_store[row["store"]] += 1
        if queues[tenant]:
            heapq.heappush(heap, _turn(queues[tenant][0], of_tenant[tenant]))
    return chosen


def _order(row: Row) -> tuple[int, int, Any, int]:
    return row["priority"], _ENDING_FIRST[row["state"]], row["job_id"], row["number"] or 0


def _turn(row: Row, load: int) -> tuple[int, int, Any, int, str]:
    return row["priority"], load, row["job_id"], row["number"] or 0, row["tenant"]
