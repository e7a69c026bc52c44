"""The reload of the profiles in an API process, and the row by which the process says with which profiles it works."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING
from uuid import uuid4

from worker.config.live_profiles import Reloader
from worker.db.pool import DATABASE_ERRORS
from worker.jobs import stores_reload
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from worker.config.settings import Settings
    from worker.db.pool import Database

log = get_logger(__name__)

WATCH_EVERY_S = 0.5
"""How often the flag of the signal handler is read."""
END_TIMEOUT_S = 1.0


class StoresWatch(threading.Thread):
    """Reads the stores file again when SIGHUP or the database asks for it. A database that is away ends nothing."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Watch for an API process; `start` begins."""
        super().__init__(name="stores", daemon=True)
        self._live, self._database = settings.live_profiles, database
        self._reloader = Reloader(self._live)
        self.ask_reload = self._reloader.ask
        """For signal handlers: sets a flag, and takes no lock."""
        self._every_s = settings.timers.heartbeat_s
        self._process, self._name = uuid4(), f"{socket.gethostname()}:{os.getpid()}"
        self._request = stores_reload.NOTHING_ASKED
        self._next_s = 0.0
        self._has_row = False
        self._ended = threading.Event()

    def run(self) -> None:
        """Watch until `end`."""
        while not self._ended.wait(min(WATCH_EVERY_S, self._every_s)):
            try:
                self._watch()
            except DATABASE_ERRORS as error:  # it is away, or without our tables: `/readyz` says so
                self._has_row = False
                log.debug("stores.not_said", error=str(error))
            except Exception:
                log.exception("stores.watch_broken")  # a fault of ours; without this thread no reload would come

    def _watch(self) -> None:
        before = self._said()
        self._reloader.look(self._request.generation, self._request.key)
        now_s = time.monotonic()
        if self._said() == before and now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        with self._database.connection() as tx:
            request = stores_reload.api_seen(tx, self._process, self._name, self._said())
        self._has_row = True
        if request != self._request:
            self._next_s = 0.0  # what follows from it is said at once
        self._request = request

    def _said(self) -> stores_reload.ProfilesDocument | None:
        return stores_reload.document(self._live, self._reloader, self._request.key)

    def end(self) -> None:
        """End the thread, and remove the process's row; without a database the row is forgotten in its time."""
        self._ended.set()
        self.join(END_TIMEOUT_S)
        if self.is_alive() or not self._has_row:
            return  # the database is away
        try:
            with self._database.connection() as tx:
                stores_reload.api_gone(tx, self._process)
        except DATABASE_ERRORS as error:
            log.debug("stores.not_said", error=str(error))
