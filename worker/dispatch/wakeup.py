"""How the dispatcher sleeps and what wakes it: a NOTIFY from any process, a nudge from this one, or the time."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from worker.db import listen

if TYPE_CHECKING:
    from worker.db import Tx

POLL_BUSY_S = 0.05
"""Without LISTEN: how long to sleep while work is live."""
POLL_IDLE_S = 1.0


class Wakeup:
    """A sleep that can be ended from other threads (`wake`) and from other processes (NOTIFY)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Tx | None = None
        # sockets and not a pipe: closed, they have no number any more that could meanwhile be another file's
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)

    def wake(self) -> None:
        """End the wait now, or the next one at once. Safe from any thread, a signal handler, and after `close`."""
        with suppress(OSError):  # it is full of wake-ups already, or closed
            self._bell.send(b"!")

    def connect(self) -> None:
        """Listen for NOTIFY, if that is not so already; without success the sleep is a poll."""
        if self._connection is None:
            with suppress(psycopg.OperationalError):
                self._connection = listen(self._url)

    def wait(self, seconds: float, *, busy: bool) -> None:
        """Sleep for so many seconds at most, less where no NOTIFY can be heard."""
        waits: list[int] = [self._ear.fileno()]
        if self._connection is None:
            seconds = min(seconds, POLL_BUSY_S if busy else POLL_IDLE_S)
        else:
            waits.append(self._connection.fileno())
        readable, _, _ = select.select(waits, [], [], max(0.0, seconds))
        if waits[0] in readable:
            self._ear.recv(65536)
        if len(readable) > (waits[0] in readable):
            self._drain()

    def _drain(self) -> None:
        if self._connection is None:
            return
        try:
            for _ in self._connection.notifies(timeout=0):
                pass
        except psycopg.OperationalError:
            self.disconnect()

    def disconnect(self) -> None:
        """Stop listening; the next `connect` begins anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def close(self) -> None:
        """Let go of everything."""
        self.disconnect()
        self._ear.close()
        self._bell.close()
