"""How a role handles SIGHUP, and a signal to end while the database does not answer."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg

from worker.db.pool import connect
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.config.settings import Settings

log = get_logger(__name__)

DATABASE_TIMEOUT_S = 4.5
"""How long a role waits at its end for a database that does not answer; it then ends within 5 s."""


def run_on_after_hangup(ask_reload: Callable[[], None] | None = None) -> None:
    """Log SIGHUP (a closed terminal) and run on. Under `nohup` SIGHUP stays ignored.

    Args:
        ask_reload: has the process read its stores file again; it interrupts any code, so it only sets a flag.
    """
    advice = "Nothing: this process runs on; SIGTERM ends it."
    if ask_reload is not None:
        advice = "Nothing: this process runs on, and reads its stores file again; SIGTERM ends it."

    def note_hangup(*_: object) -> None:
        if ask_reload is not None:
            ask_reload()
        # in a thread: the interrupted code may be writing a line of the log
        threading.Thread(target=log.info, args=("signal.hangup",), kwargs={"advice": advice}, daemon=True).start()

    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, note_hangup)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # its parent may have blocked it until now


@contextmanager
def hangups_wait() -> Iterator[None]:
    """Have the processes that are started meanwhile get SIGHUP only when `run_on_after_hangup` has run in them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
