"""What a role does when a signal tells it to end while the database is away, or that its terminal was closed."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from worker.db.pool import connect
from worker.telemetry.log import get_log

if TYPE_CHECKING:
    from worker.config.settings import Settings

log = get_log(__name__)

DATABASE_TIMEOUT_S = 4.5
"""How long a role that is to end waits for a database that does not answer: with the rest it has ended within 5 s."""


def run_on_after_hangup() -> None:
    """Have a closed terminal (SIGHUP) cost one line in the log; `nohup` leaves nothing to be told of."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _note_hangup)


def _note_hangup(*_: object) -> None:
    # in a thread: the line that this one may be writing must be ended first
    advice = "Nothing: this process runs on; SIGTERM ends it."
    threading.Thread(target=log.info, args=("signal.hangup",), kwargs={"advice": advice}, daemon=True).start()


def leave_if_database_is_away(settings: Settings, code: int) -> None:
    """Leave this process soon if the database does not answer by then; call it when the process is told to end.

    What it still does would wait for the database, each statement for seconds; nothing of it could be recorded.
    """
    answered = threading.Event()

    def probe() -> None:
        with suppress(psycopg.Error):
            connect(settings.database_url, pooled=settings.database_direct_url is not None).close()
            answered.set()

    def leave() -> None:
        if not answered.wait(DATABASE_TIMEOUT_S):
            log.warning("signal.left", advice="The database did not answer; what was under way is found again.")
            os._exit(code)

    for target in (leave, probe):
        threading.Thread(target=target, name=f"stop-{target.__name__}", daemon=True).start()
