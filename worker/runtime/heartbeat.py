"""The heartbeat thread: reports that this process lives, reads which claims are void, ends a process that is stuck."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from worker.config.celery_parts import threads, why_stock
from worker.db.pool import UNAVAILABLE
from worker.jobs import leases, transitions, workers
from worker.jobs.leases import Deferral
from worker.runtime.concurrency import Slots
from worker.runtime.overdue import OverdueWatch
from worker.runtime.sending_report import SendingReport
from worker.runtime.stores_reload import StoresReload
from worker.sources.file import usable
from worker.tasks.guard import boot_clock_s
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.tasks.context import Runtime

log = get_logger(__name__)

WATCH_EVERY_S = 0.5
EXIT_GRACE_S = 5.0
EXIT_STUCK = 70
PARENT_VARIABLE = "SLICEWAYPOOL_PID"
"""The environment variable with the pid of the parent of the worker processes: a child whose parent is gone stops."""


class Liveness(threading.Thread):
    """Heartbeats, watches and, at the end, sees to it that the process goes."""

    def __init__(self, rt: Runtime, request_stop: Callable[[], None], resize: Callable[[int], None]) -> None:
        """Watch over a process.

        Args:
            rt: the process.
            request_stop: asks the process to stop, as SIGTERM does.
            resize: has the pool run so many tasks at once.
        """
        super().__init__(name="liveness", daemon=True)
        self._rt, self._request_stop, self._resize = rt, request_stop, resize
        self._slots = Slots(threads(rt.settings), ahead=why_stock(rt.settings) is None)
        self.stores = StoresReload(rt)
        self._report = SendingReport(rt.timers.progress_s)
        self._overdue = OverdueWatch(rt.timers.stuck_after_s)
        self._ended = threading.Event()
        self._away = False
        self._next_beat_s = 0.0
        self._parent = int(os.environ.get(PARENT_VARIABLE, "0"))

    def register(self) -> None:
        """Make the process known; waits for the database."""
        self._resize(self._tasks)
        while not self._ended.is_set():
            try:
                with self._rt.db.connection() as tx:
                    workers.start_worker(
                        tx, self._rt.worker, self._rt.name, slots=self._tasks, roots=self._usable_roots()
                    )
            except UNAVAILABLE as error:
                self._note_away(error)
                self._ended.wait(1.0)
            else:
                return

    def run(self) -> None:
        """Watch until `end`."""
        stopping_since_s: float | None = None
        while True:
            first_answer = self._rt.transfers.links.first_answer.wait(min(WATCH_EVERY_S, self._rt.timers.heartbeat_s))
            if self._ended.is_set():
                return
            now_s = time.monotonic()
            try:
                self._watch(now_s, first_answer=first_answer)
                self._away = False
            except UNAVAILABLE as error:
                self._note_away(error)
            except Exception:
                # a fault of ours; if it ended this thread, the worker would work on though it is taken for dead
                log.exception("worker.watch_broken")
            if self._parent and os.getppid() != self._parent:
                self._stop()
            if self._overdue.is_stuck(self._rt.guards.current(), time.monotonic()):
                log.error("worker.stuck", advice="A thread did not end at its deadline; the process is restarted.")
                self._stop()
            if self._rt.stopping.is_set():
                stopping_since_s = stopping_since_s or now_s
                if now_s - stopping_since_s > EXIT_GRACE_S:
                    self.leave()

    def _watch(self, now_s: float, *, first_answer: bool) -> None:
        """Beat when it is time, or when there is news of what is sent or of a link; hear which claims are void."""
        self._rt.transfers.links.first_answer.clear()
        news_of_stores = self.stores.look()
        if self._resized() or first_answer or news_of_stores or now_s >= self._next_beat_s or self._progressed(now_s):
            self._next_beat_s = now_s + self._rt.timers.heartbeat_s
            self._beat()
        if first_answer:
            self._rt.notify_dispatcher()
        self._find_lost()

    def end(self) -> None:
        """End the thread, and say that this worker has stopped."""
        self._ended.set()
        self._rt.transfers.links.first_answer.set()  # what it waits for
        try:
            with self._rt.db.connection() as tx:
                workers.stop_worker(tx, self._rt.worker)
        except UNAVAILABLE as error:
            self._note_away(error)

    def _progressed(self, now_s: float) -> bool:
        return self._report.due(self._report.observe(self._rt.guards.current()), now_s)

    def _beat(self) -> None:
        sending = self._report.observe(self._rt.guards.current())
        with self._rt.db.connection() as tx:
            request = workers.heartbeat(
                tx,
                self._rt.worker,
                slots=self._tasks,
                roots=self._usable_roots(),
                claimed_through=self._rt.guards.claimed_through,
                links=self._rt.transfers.links.report(),
                sending=[entry.document(boot_clock_s()) for entry in sending] or None,
                profiles=self.stores.say(),
            )
        self._report.written(sending, time.monotonic())
        if request is not None:
            self.stores.note(request)
        elif not self._rt.stopping.is_set():
            log.error("worker.taken_for_dead", advice="It was silent for too long; the process is restarted.")
            self._stop()

    def _resized(self) -> bool:
        """Give the process as many slots as pay; return whether their number has changed."""
        before, took_s = self._tasks, None
        if len(self._rt.transfers.sent) >= self._slots.now:
            sent, self._rt.transfers.sent = self._rt.transfers.sent, []
            took_s = sum(sent) / len(sent)
        self._rt.transfers.room.resize(self._slots.observe(len(self._rt.guards.current()), took_s))
        if self._tasks == before:
            return False
        self._resize(self._tasks)
        log.debug("worker.resized", slots=self._slots.now, ahead=self._slots.prefetch)
        return True

    @property
    def _tasks(self) -> int:
        return self._slots.now + self._slots.prefetch

    def _find_lost(self) -> None:
        guards = [guard for guard in self._rt.guards.current() if guard.claimed]
        if not guards:
            return
        with self._rt.db.connection() as tx:
            lost = leases.lost_claims(tx, [(guard.claim, guard.aborts) for guard in guards], self._rt.worker)
        for guard in guards:
            guard.lost = guard.lost or (guard.claim.job_id, guard.claim.number) in lost

    def _usable_roots(self) -> list[str]:
        roots = self._rt.settings.profiles.roots.values()
        return [root.name for root in roots if usable(root) is None]

    def _stop(self) -> None:
        if not self._rt.stopping.is_set():
            self._request_stop()

    def leave(self) -> None:
        """Give back what threads still hold, and go: they had their time."""
        for guard in self._rt.guards.current():
            if not guard.claimed:
                continue
            try:
                with self._rt.db.connection() as tx:
                    transitions.release(
                        tx, guard.claim, Deferral(None, None), sent_bytes=guard.sent_bytes, size_bytes=guard.size_bytes
                    )
            except Exception as error:  # noqa: BLE001 - whatever it is, the lease or the next statement ends the claim
                log.warning("claim.left", error=str(error))
        self.end()
        log.error("worker.left", advice="Threads did not end within the grace; what they held was given back.")
        os._exit(EXIT_STUCK)

    def _note_away(self, error: Exception) -> None:
        if not self._away:
            log.warning("worker.database_lost", error=str(error))
        self._away = True
