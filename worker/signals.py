"""How a role handles SIGHUP of a closed terminal, and a signal to end while the database does not answer."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from worker.db.pool import connect
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from worker.config.settings import Settings

log = get_logger(__name__)

DATABASE_TIMEOUT_S = 4.5
"""How long a role waits at its end for a database that does not answer; it then ends within 5 s."""


def run_on_after_hangup() -> None:
    """Log SIGHUP (a closed terminal) and run on. Under `nohup` SIGHUP stays ignored."""
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _note_hangup)


def _note_hangup(*_: object) -> None:
    # in a thread: the interrupted code may be writing a line of the log
    advice = "Nothing: this process runs on; SIGTERM ends it."
    threading.Thread(target=log.info, args=("signal.hangup",), kwargs={"advice": advice}, daemon=True).start()


def force_exit_if_database_is_away(settings: Settings, code: int) -> None:
    """End the process if the database does not answer within `DATABASE_TIMEOUT_S`; for a process that is to end.

    Otherwise each of its last statements would wait for the database for seconds, and record nothing.
    """
    answered = threading.Event()

    def probe() -> None:
        with suppress(psycopg.Error):
            connect(settings.database_url, pooled=settings.database_direct_url is not None).close()
            answered.set()

    def force_exit() -> None:
        if not answered.wait(DATABASE_TIMEOUT_S):
            log.warning("signal.left", advice="The database did not answer; the work in progress is dispatched again.")
            os._exit(code)

    for target in (force_exit, probe):
        threading.Thread(target=target, name=f"stop-{target.__name__}", daemon=True).start()
