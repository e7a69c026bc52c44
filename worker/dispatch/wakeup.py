"""How the dispatcher sleeps and what wakes it: a NOTIFY, `notify_dispatcher` in its own process, or the time."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from worker.db.notify import URGENT, listen
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.db.pool import Connection
    from worker.db.url import DatabaseUrl

log = get_logger(__name__)

_NOW, _SOON = b"!", b"."
POLL_BUSY_S = 0.05
"""Without LISTEN: how long to sleep while work is live."""
POLL_IDLE_S = 1.0
RETRY_S, RETRY_MAX_S = 0.5, 8.0
"""After a failed LISTEN: the first pause, which doubles, and the longest."""


class Wakeup:
    """A sleep that can be ended from other threads (`wake`) and from other processes (NOTIFY)."""

    def __init__(self, url: str | DatabaseUrl, listen: Callable[[str | DatabaseUrl], Connection] = listen) -> None:
        self._url, self._listen = url, listen
        self._connection: Connection | None = None
        self._attempt: threading.Thread | None = None
        self._fresh: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._retry_s, self._retry_at_s, self._polls = RETRY_S, 0.0, False
        # sockets and not a pipe: closed, they have no number any more that could meanwhile be another file's
        self._pipe_reader, self._pipe_writer = socket.socketpair()
        self._pipe_reader.setblocking(False)
        self._pipe_writer.setblocking(False)

    def wake(self, *, urgent: bool = True) -> None:
        """End the wait, or the next one; ``urgent``: at once, else when its pause is over.

        Safe from any thread, a signal handler, and after `close`.
        """
        with suppress(OSError):  # it is full of wake-ups already, or closed
            self._pipe_writer.send(_NOW if urgent else _SOON)

    def connect(self) -> None:
        """See that NOTIFY will be heard; never waits and never fails: until it is heard, the sleep is a poll.

        LISTEN is begun in a thread of its own, and again after a pause that grows: a leader that waited here for a
        server that does not answer would lose its lease each time.
        """
        with self._lock:
            self._connection, self._fresh = self._connection or self._fresh, None
        if self._connection is None and self._attempt is None and time.monotonic() >= self._retry_at_s:
            self._attempt = threading.Thread(target=self._try, name="listen", daemon=True)
            self._attempt.start()

    def _try(self) -> None:
        try:
            connection = self._listen(self._url)
        except Exception as error:  # noqa: BLE001 - whatever it is, polling does without
            if not self._polls:
                why = str(error).partition("\n")[0] or type(error).__name__
                log.warning("dispatcher.polls", error=why, advice="LISTEN fails; `sliceway doctor` says more.")
            self._polls = True
            self._retry_at_s = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
            self._attempt = None
            return
        with self._lock:
            closed = self._closed
            self._fresh = None if closed else connection
        if self._polls:
            log.info("dispatcher.listens")
        self._retry_s, self._attempt, self._polls = RETRY_S, None, False
        if closed:
            connection.close()
        self.wake()  # what was notified before is found by looking

    def wait(self, seconds: float, *, busy: bool, pause_s: float = 0.0, saturated: bool = False) -> None:
        """Sleep for so many seconds at most, less where no NOTIFY can be heard.

        What wakes it ends it, but not before ``pause_s``, unless it is urgent and the sleeper is not ``saturated``.
        """
        if self._connection is None:
            seconds = min(seconds, POLL_BUSY_S if busy else POLL_IDLE_S)
        now_s = time.monotonic()
        pause_until_s, until_s = now_s + pause_s, now_s + max(seconds, pause_s)
        while True:
            waits = [self._pipe_reader.fileno(), *([self._connection.fileno()] if self._connection is not None else [])]
            readable, _, _ = select.select(waits, [], [], max(0.0, until_s - time.monotonic()))
            if not readable or (self._hear(readable) and not saturated):
                return
            until_s = pause_until_s

    def _hear(self, readable: Sequence[int]) -> bool:
        """Read the notifications that have come; return whether any of them is urgent."""
        bell = self._pipe_reader.fileno() in readable
        at_once = bell and _NOW in self._pipe_reader.recv(65536)
        if len(readable) > bell and self._connection is not None:
            try:
                payloads = [notify.payload for notify in self._connection.notifies(timeout=0)]
            except psycopg.OperationalError:
                self.disconnect()
            else:
                at_once = at_once or URGENT in payloads
        return at_once

    def disconnect(self) -> None:
        """Stop listening; the next `connect` begins anew."""
        with self._lock:
            connections, self._connection, self._fresh = (self._connection, self._fresh), None, None
        for connection in connections:
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._closed = True
        self.disconnect()
        self._pipe_reader.close()
        self._pipe_writer.close()
