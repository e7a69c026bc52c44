"""The dispatcher: the one place that decides what runs next, and the only publisher of work.

It runs in a thread of every worker process; one leads. Leading is an optimisation: marks are made under SKIP LOCKED
with a growing token and claims are guarded, so that two leaders at once do no harm. Postgres is the truth; what is in
the broker can be lost or doubled at any time and is made again from the rows.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy.exc

from worker.dispatch.links import LinkBook
from worker.dispatch.selection import Limits, choose
from worker.jobs import aborts, breakers, due, leadership, leases, transitions, workers
from worker.telemetry.log import get_log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from worker.broker.publisher import Broker
    from worker.config.settings import Settings
    from worker.db.pool import Connection, Database
    from worker.dispatch.wakeup import Wakeup
    from worker.jobs.links import Link
    from worker.jobs.retry import ErrorDocument

log = get_log(__name__)

DATABASE_ERRORS = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)
TICK_INTERVAL_S = 0.02
"""The least time from one tick to the next: what becomes due meanwhile shares it. After a pause it comes at once."""
MIN_TICK_INTERVAL_S = 0.005
"""The same after a new session or a last slice, for which slots may idle. A tick itself takes about as long."""
MAX_TICK_INTERVAL_S = 0.1
"""The most, however long the backlog in the broker would last: something more urgent may come."""
USED = 0.7
"""The share of the backlog in the broker that has found a slot when the next tick comes."""
RESCUE_EVERY_S = 0.5
BROKER_CHECK_EVERY_S = 1.0
LANE_ROWS_MAX = 2000
QUARANTINE_DEATHS = 4
"""Two deaths in company, two more alone: whatever it is kills every worker that takes it."""


class Dispatcher:
    """Makes one tick after the other while it leads, and waits to lead otherwise."""

    def __init__(
        self,
        *,
        db: Database,
        broker: Broker,
        wakeup: Wakeup,
        settings: Settings,
        holder: UUID,
        store_caps: Mapping[str, int],
    ) -> None:
        self._db, self._broker, self._wakeup, self._holder = db, broker, wakeup, holder
        self._window, self._timers = settings.window, settings.timers
        self._store_caps = store_caps
        self._whole_bytes = max((store.whole_bytes for store in settings.profiles.stores.values()), default=0)
        self._links = LinkBook()
        self._links_at: datetime | None = None
        self._known = list(store_caps)
        self._stop = threading.Event()
        self._term: int | None = None
        self._next: dict[str, float] = {}
        self._unbroken_since = 0.0
        self._last_round = 0.0
        self._last_tick_s, self._pace_s = 0.0, TICK_INTERVAL_S
        self._backlogged = False
        self._lost_since: datetime | None = None
        self._republish_all = False
        self._lanes = 1

    @property
    def leads(self) -> bool:
        """Whether this dispatcher leads, as far as it knows."""
        return self._term is not None

    def run(self) -> None:
        """Tick until `stop`; survives the loss of database and broker."""
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._wakeup.connect()
                sleep_s, busy = self._round()
            except DATABASE_ERRORS as error:
                self._database_lost(error)
                sleep_s, busy = 0.5, False
            except self._broker.errors as error:
                self._broker_lost(error)
                sleep_s, busy = 0.5, False
            except Exception:
                # a fault of ours; if it ended this thread, the worker would lead for ever and dispatch nothing
                log.exception("dispatcher.broken")
                self._republish_all = True
                sleep_s, busy = 1.0, False
            pause_s = max(0.0, began + self._pace_s - time.monotonic())
            self._wakeup.wait(sleep_s, busy=busy, pause_s=pause_s, saturated=self._backlogged)
            self._stop.wait(max(0.0, began + MIN_TICK_INTERVAL_S - time.monotonic()))
        self._resign()

    def stop(self) -> None:
        """End `run` soon. Safe from any thread."""
        self._stop.set()
        self._wakeup.wake()

    def _round(self) -> tuple[float, bool]:
        now = time.monotonic()
        if now - self._last_round > self._timers.dead_after_s / 2:
            self._unbroken_since = now  # this process or the database was away: silence of others says nothing
        self._last_round = now
        with self._db.connection() as tx:
            if self._is_time("lead", self._timers.lead_s / 3):
                self._lead(tx)
            if self._term is None:
                return self._timers.lead_s / 3, False
            return self._tick(tx)

    def _lead(self, tx: Connection) -> None:
        term = leadership.lead(tx, self._holder, self._timers.lead_s)
        if term is not None and term != self._term:
            log.info("dispatcher.leads", term=term)
            self._republish_all = True  # what the last leader marked may never have been published
            self._links.begin_term(leases.reported_links(tx), time.monotonic())
        self._term = term

    def _tick(self, tx: Connection) -> tuple[float, bool]:
        if self._is_time("rescue", RESCUE_EVERY_S):
            transitions.promote_due(tx)
            self._rescue(tx)
        seen = due.snapshot(tx, whole_bytes=self._whole_bytes)
        if seen.abort_due or (seen.next_due_s is not None and seen.next_due_s <= 0):
            transitions.promote_due(tx)
            seen = due.snapshot(tx, whole_bytes=self._whole_bytes)
        self._republish_lost(tx, seen)
        in_flight = sum(load.requests for load in seen.in_flight.values())
        free = 2 * seen.slots - in_flight
        links = self._learned(tx, seen)
        dispatched = self._dispatch(tx, seen, free, links) if free > 0 else 0
        since_s, self._last_tick_s = time.monotonic() - self._last_tick_s, time.monotonic()
        waiting, busy = in_flight + dispatched - seen.slots, in_flight + dispatched > 0
        backlog_drains_in_s = until_used_s(waiting=waiting, dispatched=dispatched, since_s=since_s)
        self._pace_s = min(MAX_TICK_INTERVAL_S, max(TICK_INTERVAL_S, backlog_drains_in_s))
        longest = RESCUE_EVERY_S if busy else 1.0
        self._backlogged = waiting > 0
        if self._backlogged:  # a freed slot takes a waiting message by itself, and new work would queue behind it
            longest = min(longest, max(self._pace_s, backlog_drains_in_s))
        return self._until_due(seen, longest), busy

    def _until_due(self, seen: due.QueueSnapshot, longest: float) -> float:
        # a leader that sleeps past its term, or so long that its ticks count as interrupted, would be none
        longest = min(longest, self._timers.lead_s / 3, self._timers.dead_after_s / 4)
        return longest if seen.next_due_s is None else min(longest, max(0.0, seen.next_due_s))

    def _dispatch(self, tx: Connection, seen: due.QueueSnapshot, free: int, links: Mapping[str, Link]) -> int:
        waiting = [store for store, is_due in seen.waiting_stores.items() if not is_due]
        per_lane = max(1, min(free, LANE_ROWS_MAX // self._lanes))
        items = due.due_steps(tx, per_lane=per_lane, blocked=waiting, whole_bytes=self._whole_bytes)
        items += due.due_slices(tx, per_lane=per_lane, window=self._window or 2 * seen.slots, blocked=waiting)
        if waiting:
            items += aborts.due_aborts(tx, blocked=waiting, known=self._known, most=per_lane)
        self._lanes = max(1, len({(item.store, item.tenant) for item in items}))
        probes = [store for store, is_due in seen.waiting_stores.items() if is_due]
        target_s, slow_s = self._timers.slice_target_s, self._timers.slow_slice_s
        limits = Limits(free, seen.slots, self._store_caps, links, frozenset(probes), target_s, slow_s)
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
        return len(marked)

    def _learned(self, tx: Connection, seen: due.QueueSnapshot) -> Mapping[str, Link]:
        """Return the links, with what workers have reported of them since the last tick."""
        if seen.links_at == self._links_at:
            return seen.links
        self._links_at = seen.links_at
        found = self._links.learn(leases.reported_links(tx), seen.links, time.monotonic())
        if found:
            leases.keep_links(tx, found)
        return {**seen.links, **found}

    def _republish_lost(self, tx: Connection, seen: due.QueueSnapshot) -> None:
        """Republish what may be lost, with the token it has: one copy of each wins its claim."""
        if self._is_time("broker", BROKER_CHECK_EVERY_S) and self._broker.was_emptied():
            if not self._republish_all:  # at the start of a term it is as good as new anyway
                log.warning("broker.emptied")
            self._republish_all = True
        before: datetime | None = None
        if not self._republish_all:
            signs = [seen.last_ended] if seen.last_ended is not None and seen.last_ended != self._lost_since else []
            if self._is_time("presumed_lost", RESCUE_EVERY_S):
                presumed_lost_after = timedelta(seconds=self._timers.presumed_lost_s)
                if seen.claimed_through is not None:
                    signs.append(seen.claimed_through - presumed_lost_after)
                if self._broker.length() == 0:  # whoever took it has had time to claim it: it was dropped, or lost
                    signs.append(seen.now - presumed_lost_after)
            if not signs:
                return
            before = max(signs)
        lost = transitions.redispatch(tx, before)
        self._broker.publish(lost)
        self._republish_all, self._lost_since = False, seen.last_ended
        if lost:
            log.info("dispatcher.republished", messages=len(lost))

    def _rescue(self, tx: Connection) -> None:
        if time.monotonic() - self._unbroken_since >= self._timers.dead_after_s:
            for worker in workers.end_dead_workers(tx, self._timers.dead_after_s):
                log.warning("worker.dead", worker=str(worker.id), name=worker.name)
        for freed in transitions.rescue(tx):
            log.warning("claim.freed", job_id=str(freed.job_id), number=freed.number, deaths=freed.deaths)
            if freed.deaths >= QUARANTINE_DEATHS:
                what = "the job's own step" if freed.number is None else f"slice {freed.number}"
                error: ErrorDocument = {
                    "code": "quarantined",
                    "message": f"{freed.deaths} worker processes died at {what}, the last two with nothing else on",
                    "advice": "Look for the cause in the workers' logs (memory, the file), then retry.",
                    "at": datetime.now(UTC).isoformat(),
                }
                transitions.quarantine(tx, freed.job_id, freed.epoch, error)

    def _is_time(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every_s
        return True

    def _database_lost(self, error: Exception) -> None:
        if self._term is not None or "database" not in self._next:
            log.warning("dispatcher.database_lost", error=str(error))
        self._next = {"database": 0.0}
        self._term = None
        self._unbroken_since = time.monotonic()
        self._wakeup.disconnect()

    def _broker_lost(self, error: Exception) -> None:
        if not self._republish_all:
            log.warning("dispatcher.broker_lost", error=str(error))
        self._republish_all = True
        self._broker.close()

    def _resign(self) -> None:
        self._broker.close()
        try:
            with self._db.connection() as tx:
                leadership.resign(tx, self._holder)
        except DATABASE_ERRORS as error:
            log.warning("dispatcher.not_resigned", error=str(error))
        self._wakeup.close()


def until_used_s(*, waiting: int, dispatched: int, since_s: float) -> float:
    """Return the seconds until most of the waiting messages will have found a slot: the next tick should come then.

    A tick costs as much as a slice. A tick that dispatches one slice is early; one that finds free slots is late.

    Args:
        waiting: messages for which there is no slot yet; none or negative where slots are free.
        dispatched: how many were dispatched now, which is about how many found a slot since the last tick.
        since_s: seconds since that tick.
    """
    return max(0, waiting) * USED * since_s / max(1, dispatched)
