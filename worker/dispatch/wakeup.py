"""How the dispatcher sleeps and what wakes it: a NOTIFY from any process, a nudge from this one, or the time."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from worker.db import HURRY, listen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.db import Tx

_NOW, _SOON = b"!", b"."
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

    def wake(self, *, hurry: bool = True) -> None:
        """End the wait, or the next one; ``hurry``: at once, else when its pause is over.

        Safe from any thread, a signal handler, and after `close`.
        """
        with suppress(OSError):  # it is full of wake-ups already, or closed
            self._bell.send(_NOW if hurry else _SOON)

    def connect(self) -> None:
        """Listen for NOTIFY, if that is not so already; without success the sleep is a poll."""
        if self._connection is None:
            with suppress(psycopg.OperationalError):
                self._connection = listen(self._url)

    def wait(self, seconds: float, *, busy: bool, pause_s: float = 0.0, patient: bool = False) -> None:
        """Sleep for so many seconds at most, less where no NOTIFY can be heard.

        What wakes it ends it, but not before ``pause_s``, unless it hurries and the sleeper is not ``patient``.
        """
        if self._connection is None:
            seconds = min(seconds, POLL_BUSY_S if busy else POLL_IDLE_S)
        now_s = time.monotonic()
        pause_until_s, until_s = now_s + pause_s, now_s + max(seconds, pause_s)
        while True:
            waits = [self._ear.fileno(), *([self._connection.fileno()] if self._connection is not None else [])]
            readable, _, _ = select.select(waits, [], [], max(0.0, until_s - time.monotonic()))
            if not readable or (self._hear(readable) and not patient):
                return
            until_s = pause_until_s

    def _hear(self, readable: Sequence[int]) -> bool:
        """Take in what has come; says whether any of it hurries."""
        bell = self._ear.fileno() in readable
        hurries = bell and _NOW in self._ear.recv(65536)
        if len(readable) > bell and self._connection is not None:
            try:
                told = [notify.payload for notify in self._connection.notifies(timeout=0)]
            except psycopg.OperationalError:
                self.disconnect()
            else:
                hurries = hurries or HURRY in told
        return hurries

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
