"""A tick of the dispatcher: it chooses what runs next, marks it, publishes it, and sets the pace of the next tick.

The dispatcher is the one place that decides what runs next, and the only publisher of new work. The leader
(`worker/runtime/leader.py`) runs the ticks. Leading is an optimisation: marks are made under SKIP LOCKED with a growing
token and claims are guarded, so that two leaders at once do no harm. Postgres is the truth; what is in the broker can
be lost or doubled at any time and is made again from the rows.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from worker.dispatch.links import LinkBook
from worker.dispatch.selection import choose
from worker.jobs import aborts, breakers, due, store_links, transitions
from worker.jobs.room import Limits
from worker.telemetry.emit import emit, is_subscribed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker.broker.publisher import Broker
    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.jobs.links import Link

TICK_INTERVAL_S = 0.02
"""The least time from one tick to the next: what becomes due meanwhile shares it. After a pause it comes at once."""
MIN_TICK_INTERVAL_S = 0.005
"""The same after a new session or a last slice, for which slots may idle. A tick itself takes about as long."""
MAX_TICK_INTERVAL_S = 0.1
"""The most, however long the backlog in the broker would last: something more urgent may come."""
USED = 0.7
"""The share of the backlog in the broker that has found a slot when the next tick comes."""
LANE_ROWS_MAX = 2000


class Dispatcher:
    """Dispatches what is due. One thread uses it: that of the broker's connection."""

    def __init__(self, *, broker: Broker, settings: Settings, store_caps: Mapping[str, int]) -> None:
        self._broker = broker
        self._window, self._timers = settings.window, settings.timers
        self._store_caps = store_caps
        self._links = LinkBook()
        self._links_at: datetime | None = None
        self._last_tick_s = 0.0
        self._lanes = 1
        self._live = settings.live_profiles
        self.pace_s = TICK_INTERVAL_S
        """The least time from the last tick to the next, unless the next is urgent."""
        self.backlogged = False
        """Whether messages waited for a slot after the last tick."""

    @property
    def whole_bytes(self) -> int:
        """Files of at most this size may be sent by an init."""
        return self._live.profiles.whole_bytes

    def begin_term(self, tx: Connection) -> None:
        """Forget what an earlier term has learnt of the links: the leaders since then have used it."""
        self._links.begin_term(store_links.reported_links(tx), time.monotonic())

    def tick(self, tx: Connection, seen: due.QueueSnapshot) -> tuple[float, bool]:
        """Dispatch what is due and has room.

        Returns:
            After how many seconds a free slot may need the next tick, infinite where only a due row or a notification
            calls for one; and whether any work is in flight.
        """
        in_flight = sum(load.requests for load in seen.in_flight.values())
        free = 2 * seen.slots - in_flight
        links = self._learned(tx, seen)
        dispatched = self._dispatch(tx, seen, free, links) if free > 0 and not seen.held.queue else 0
        since_s, self._last_tick_s = time.monotonic() - self._last_tick_s, time.monotonic()
        waiting = in_flight + dispatched - seen.slots
        backlog_drains_in_s = until_used_s(waiting=waiting, dispatched=dispatched, since_s=since_s)
        self.pace_s = min(MAX_TICK_INTERVAL_S, max(TICK_INTERVAL_S, backlog_drains_in_s))
        self.backlogged = waiting > 0
        # a freed slot takes a waiting message by itself, and new work would queue behind it
        next_s = max(self.pace_s, backlog_drains_in_s) if self.backlogged else math.inf
        return next_s, in_flight + dispatched > 0

    def _dispatch(self, tx: Connection, seen: due.QueueSnapshot, free: int, links: Mapping[str, Link]) -> int:
        held, tenants = seen.held.stores, seen.held.tenants
        waiting = [store for store, is_due in seen.waiting_stores.items() if not is_due and store not in held]
        blocked = [*waiting, *held]
        per_lane = max(1, min(free, LANE_ROWS_MAX // self._lanes))
        items = due.due_steps(
            tx, per_lane=per_lane, blocked=blocked, whole_bytes=self.whole_bytes, held_tenants=tenants
        )
        window = self._window or 2 * seen.slots
        items += due.due_slices(tx, per_lane=per_lane, window=window, blocked=blocked, held_tenants=tenants)
        if waiting:
            known = list(self._store_caps)
            items += aborts.due_aborts(tx, blocked=waiting, known=known, most=per_lane, held_tenants=tenants)
        self._lanes = max(1, len({(item.store, item.tenant) for item in items}))
        probes = [store for store, is_due in seen.waiting_stores.items() if is_due]
        target_s, slow_s = self._timers.slice_target_s, self._timers.slow_slice_s
        caps, tenant_caps = seen.caps.over(self._store_caps), seen.caps.tenants
        limits = Limits(free, seen.slots, caps, links, frozenset(probes), target_s, slow_s, tenant_caps)
        chosen = choose(items, limits=limits, in_flight=seen.in_flight)
        if not chosen or self._broker.holds(2 * seen.slots):
            return 0
        if probed := {item.store for item in chosen} & set(probes):
            breakers.note_probes(tx, sorted(probed), self._timers.probe_s)
        marked = transitions.dispatch(
            tx,
            [item.job_id for item in chosen if item.number is None],
            [(item.job_id, item.number) for item in chosen if item.number is not None],
        )
        order = {(item.job_id, item.number): place for place, item in enumerate(chosen)}
        marked.sort(key=lambda dispatched: order[dispatched.job_id, dispatched.number])
        self._broker.publish(marked)
        if is_subscribed("job.dispatched"):
            for each in marked:
                emit("job.dispatched", job_id=each.job_id, number=each.number, store=each.store, state=each.state)
        return len(marked)

    def _learned(self, tx: Connection, seen: due.QueueSnapshot) -> Mapping[str, Link]:
        """Return the links, with what workers have reported of them since the last tick."""
        if seen.links_at == self._links_at:
            return seen.links
        self._links_at = seen.links_at
        found = self._links.learn(store_links.reported_links(tx), seen.links, time.monotonic())
        if found:
            store_links.keep_links(tx, found)
        return {**seen.links, **found}


def until_used_s(*, waiting: int, dispatched: int, since_s: float) -> float:
    """Return the seconds until most of the waiting messages will have found a slot: the next tick should come then.

    A tick costs as much as a slice. A tick that dispatches one slice is early; one that finds free slots is late.

    Args:
        waiting: messages for which there is no slot yet; none or negative where slots are free.
        dispatched: how many were dispatched now, which is about how many found a slot since the last tick.
        since_s: seconds since that tick.
    """
    return max(0, waiting) * USED * since_s / max(1, dispatched)
