"""The leader's long duties: they have a thread and a database connection of their own, so that none delays a tick.

The thread works while this process leads, and never touches the broker: its connection belongs to the leader's thread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from worker.db.pool import DATABASE_ERRORS, connect
from worker.telemetry.log import bound_contextvars, get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.config.settings import Settings
    from worker.db.pool import Connection

log = get_logger(__name__)

APPLICATION = "sliceway duties"
"""The connection's name in `pg_stat_activity`."""
CHECK_EVERY_S = 0.5
"""How often the thread checks which duties are due, and whether this process leads."""
RETRY_S = 5.0
"""The pause after a failed run, where the duty's own interval is not shorter."""


class Duty(Protocol):
    """A long duty. It must be safe beside the same duty of another leader, as all work of a leader."""

    @property
    def name(self) -> str:
        """Return its name, which its log lines have as `duty`."""

    @property
    def every_s(self) -> float:
        """Return the seconds from the end of one run to the next."""

    def run(self, tx: Connection, still_leads: Callable[[], bool]) -> None:
        """Do the duty once, in short statements.

        Args:
            tx: the thread's own connection, on which every statement commits.
            still_leads: checked before each statement. Where it is False, the term is over or the process stops: the
                duty returns, and the next run does the rest.
        """


class LongDuties(threading.Thread):
    """Runs the duties one after the other while this process leads. Survives database errors and faults of a duty."""

    def __init__(self, duties: Sequence[Duty], settings: Settings, term: Callable[[], int | None]) -> None:
        """Start with `start`; opens a connection when the first duty is due.

        Args:
            duties: what is to be done.
            settings: name the database.
            term: returns the term of this process; None while it does not lead.
        """
        super().__init__(name="long duties", daemon=True)
        self._duties, self._settings, self._term = duties, settings, term
        self._next_s = {duty.name: 0.0 for duty in duties}
        self._connection: Connection | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Run what is due until `end`."""
        while not self._ended.wait(CHECK_EVERY_S):
            if (term := self._term()) is None:
                self._disconnect()
                continue
            for duty in self._duties:
                if self._leads(term) and time.monotonic() >= self._next_s[duty.name]:
                    self._run_once(duty, term)
        self._disconnect()

    def end(self) -> None:
        """End the thread soon: a duty ends at its next check."""
        self._ended.set()

    def _leads(self, term: int) -> bool:
        return not self._ended.is_set() and self._term() == term

    def _run_once(self, duty: Duty, term: int) -> None:
        every_s = min(duty.every_s, RETRY_S)
        with bound_contextvars(duty=duty.name):
            try:
                duty.run(self._connected(), lambda: self._leads(term))
            except DATABASE_ERRORS as error:
                log.warning("long_duties.database_lost", error=str(error))
                self._disconnect()
            except Exception:
                # a fault of ours; the other duties go on, on a connection without a trace of it
                log.exception("long_duties.broken")
                self._disconnect()
            else:
                every_s = duty.every_s
        self._next_s[duty.name] = time.monotonic() + every_s

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(
                self._settings.database_url,
                pooled=self._settings.database_direct_url is not None,
                application_name=APPLICATION,
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=30_000,
            )
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
