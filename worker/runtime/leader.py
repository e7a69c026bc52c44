"""The leader: one thread of every worker process, which works while this process leads and waits to lead otherwise.

A round of the leader has a fixed order: promotion and rescue, the snapshot of the queue, republication, one tick of the
dispatcher. All of it runs in one thread and on one connection to the database. The broker's connection serves one
thread, and the rescuer judges the silence of workers by the unbroken time of these rounds. What takes long has another
thread (`worker/runtime/long_duties.py`).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from worker.db.pool import DATABASE_ERRORS
from worker.dispatch.dispatcher import MIN_TICK_INTERVAL_S, Dispatcher
from worker.jobs import leadership
from worker.maintenance import promoter
from worker.maintenance.abandoner import Abandoner
from worker.maintenance.cadence import Cadence
from worker.maintenance.republisher import Republisher
from worker.maintenance.rescuer import Rescuer
from worker.runtime.long_duties import LongDuties
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from worker.broker.publisher import Broker
    from worker.config.settings import Settings
    from worker.db.pool import Connection, Database
    from worker.dispatch.wakeup import Wakeup
    from worker.jobs.due import QueueSnapshot
    from worker.runtime.long_duties import Duty

log = get_logger(__name__)

RESCUE_EVERY_S = 0.5
IDLE_EVERY_S = 1.0
"""The longest time between two rounds while no work is in flight."""


class Leader:
    """Makes one round after the other while it leads, and waits to lead otherwise."""

    def __init__(
        self,
        *,
        db: Database,
        broker: Broker,
        wakeup: Wakeup,
        settings: Settings,
        holder: UUID,
        store_caps: Mapping[str, int],
        duties: Sequence[Duty] = (),
    ) -> None:
        self._db, self._broker, self._wakeup, self._holder = db, broker, wakeup, holder
        self._timers = settings.timers
        self._cadence = Cadence()
        self._rescuer = Rescuer(self._timers.dead_after_s)
        self._abandoner = Abandoner(settings)
        self._republisher = Republisher(broker, self._cadence, self._timers.presumed_lost_s)
        self._dispatcher = Dispatcher(broker=broker, settings=settings, store_caps=store_caps)
        self._stop = threading.Event()
        self._term: int | None = None
        self._term_ends_s = 0.0
        self._has_lost_database = False
        self._long_duties = LongDuties(duties, settings, self._lasting_term) if duties else None

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it knows."""
        return self._term is not None

    def run(self) -> None:
        """Make rounds until `stop`; survives the loss of database and broker."""
        if self._long_duties is not None:
            self._long_duties.start()
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
                self._republisher.all_lost = True
                sleep_s, busy = 1.0, False
            pause_s = max(0.0, began + self._dispatcher.pace_s - time.monotonic())
            self._wakeup.wait(sleep_s, busy=busy, pause_s=pause_s, saturated=self._dispatcher.backlogged)
            self._stop.wait(max(0.0, began + MIN_TICK_INTERVAL_S - time.monotonic()))
        self._resign()
        if self._long_duties is not None:
            self._long_duties.join()  # the stop of the process bounds how long it waits for this thread

    def stop(self) -> None:
        """End `run` soon. Safe from any thread."""
        self._stop.set()
        if self._long_duties is not None:
            self._long_duties.end()
        self._wakeup.wake()

    def _round(self) -> tuple[float, bool]:
        self._rescuer.note_round()
        with self._db.connection() as tx:
            if self._cadence.is_time("lead", self._timers.lead_s / 3):
                self._lead(tx)
            if self._term is None:
                return self._timers.lead_s / 3, False
            return self._work(tx)

    def _lead(self, tx: Connection) -> None:
        term_ends_s = time.monotonic() + self._timers.lead_s
        term = leadership.lead(tx, self._holder, self._timers.lead_s)
        if term is not None and term != self._term:
            log.info("dispatcher.leads", term=term)
            self._republisher.all_lost = True
            self._dispatcher.begin_term(tx)
        self._term, self._term_ends_s = term, term_ends_s

    def _lasting_term(self) -> int | None:
        """Return the term while it lasts; None also where this thread waits for the database past the term's end."""
        return self._term if time.monotonic() < self._term_ends_s else None

    def _work(self, tx: Connection) -> tuple[float, bool]:
        """Run the duties that are due and one tick; return how long to sleep then, and whether work is in flight."""
        if self._cadence.is_time("rescue", RESCUE_EVERY_S):
            promoter.promote(tx)
            self._rescuer.rescue(tx)
            self._abandoner.end_abandoned(tx)
        snapshot = promoter.promoted_snapshot(tx, whole_bytes=self._dispatcher.whole_bytes)
        self._republisher.republish_lost(tx, snapshot)
        next_s, busy = self._dispatcher.tick(tx, snapshot)
        return self._until_due(snapshot, min(next_s, RESCUE_EVERY_S if busy else IDLE_EVERY_S)), busy

    def _until_due(self, snapshot: QueueSnapshot, longest_s: float) -> float:
        # a leader that sleeps past its term, or so long that its rounds count as interrupted, would be none
        longest_s = min(longest_s, self._timers.lead_s / 3, self._timers.dead_after_s / 4)
        return longest_s if snapshot.next_due_s is None else min(longest_s, max(0.0, snapshot.next_due_s))

    def _database_lost(self, error: Exception) -> None:
        if self._term is not None or not self._has_lost_database:
            log.warning("dispatcher.database_lost", error=str(error))
        self._has_lost_database = True
        self._term = None
        self._cadence.restart()
        self._rescuer.note_database_lost()
        self._wakeup.disconnect()

    def _broker_lost(self, error: Exception) -> None:
        if not self._republisher.all_lost:
            log.warning("dispatcher.broker_lost", error=str(error))
        self._republisher.all_lost = True
        self._broker.close()

    def _resign(self) -> None:
        self._broker.close()
        try:
            with self._db.connection() as tx:
                leadership.resign(tx, self._holder)
        except DATABASE_ERRORS as error:
            log.warning("dispatcher.not_resigned", error=str(error))
        self._wakeup.close()
