"""One connection to a store. It never blocks for long, and it notices when the link stalls.

A byte that the kernel has taken need not have left: the socket's buffer may hold a whole slice. While it waits, the
connection asks the kernel (`TIOCOUTQ`) how many bytes the peer has not acknowledged. An acknowledged byte has reached
the peer's kernel or a proxy. This shows that the link moves, not that the store has the byte.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import sys
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from worker.errors import Interrupted, Stop

if TYPE_CHECKING:
    from worker.http.deadline import Guard

SMALL_PIECE_BYTES = 16 * 1024
"""A smaller piece is sent together with the next larger one, or with the last one."""
RECEIVE_BYTES = 64 * 1024
MAX_BATCH_BYTES = 512 * 1024
"""The most bytes for one send on a fast link. Each send costs CPU time."""
FAST_SEND_S = 0.05
"""A send that takes longer shows a slow link."""
POLL_INTERVAL_S = 0.2
"""The time between two questions to the kernel while bytes are unacknowledged, and between two tries of a send. Linux
reports a socket writable only when a third of its buffer is free. On a slow link with a large buffer that takes
minutes."""
IDLE_POLL_INTERVAL_S = 1.0
"""The time between two questions to the guard when only the response is missing."""
STOP_SENDING_GRACE_S = 1.0
"""After a stop, the wait for acknowledgements once the kernel has all bytes."""
STOP_RESPONSE_GRACE_S = 5.0
"""After a stop, the wait for the response once the peer has acknowledged all bytes. A slice that the store acknowledges
need not be sent again."""

Piece = bytes | memoryview
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with a time of 0: close() drops the unsent bytes


@dataclass(slots=True)
class Transfer:
    """One request in progress.

    Attributes:
        guard: checked between waits; receives the number of acknowledged content bytes.
        content_bytes: the number of file bytes in the request's body. If 0, a stop does not end the wait for the
            response.
        offset_bytes: where in the body the file's bytes begin.
    """

    guard: Guard
    content_bytes: int = 0
    offset_bytes: int = 0

    def acknowledged(self, body_bytes: int) -> None:
        """Report to the guard that the peer has acknowledged the first ``body_bytes`` bytes of the body."""
        if self.content_bytes:
            self.guard.acknowledged(min(max(0, body_bytes - self.offset_bytes), self.content_bytes))

    def answered(self) -> None:
        """Report that the response came after the whole body was sent."""
        self.acknowledged(self.offset_bytes + self.content_bytes)


def unacknowledged_bytes(sock: socket.socket) -> int | None:
    """Return how many bytes of a socket the peer has not acknowledged; None if the kernel does not tell."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # ValueError: the socket is closed
        return None


class SocketConnection:
    """One connection, in use by one request or idle. Its socket does not block; a call that must wait polls.

    Attributes:
        batch_bytes: how many bytes to collect for one send; grows while sends are fast.
        body_from: how many bytes of the request come before its body.
        idle_since_s: since when the connection is idle, by the monotonic clock.
        read_timeout_s: how long to wait for bytes from the peer, counted from its last acknowledgement.
        received: received bytes that are not read yet.
        taken_bytes: how many bytes of the request the kernel has taken.
        transfer: the current request; None if idle.
    """

    __slots__ = (
        "_observed_s", "_observed_taken", "_plain", "_progress_s", "_readable", "_sock", "_stall_s", "_stopped_s",
        "_unacked", "_writable", "batch_bytes", "body_from", "idle_since_s", "read_timeout_s", "received",
        "taken_bytes", "transfer",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        self._sock = sock
        self._plain = not isinstance(sock, ssl.SSLSocket)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable.register(sock, select.POLLOUT)
        self.batch_bytes = SMALL_PIECE_BYTES
        self.read_timeout_s = 0.0
        self.received = bytearray()
        self.idle_since_s = 0.0
        self.transfer: Transfer | None = None

    def begin(self, transfer: Transfer, stall_s: float, body_from: int = 0) -> None:
        """Carry this request from now on; the link has stalled if no byte is acknowledged for ``stall_s`` seconds."""
        self.transfer, self._stall_s, self.body_from = transfer, stall_s, body_from
        self.taken_bytes = self._observed_taken = 0
        self._unacked: int | None = 0
        self._progress_s = self._observed_s = time.monotonic()
        self._stopped_s: float | None = None
        transfer.acknowledged(0)

    def send(self, *pieces: Piece) -> None:
        """Send all pieces.

        Raises:
            Interrupted: by the guard.
            httpx.WriteTimeout: the link has stalled.
            httpx.WriteError: the connection is broken.
        """
        began_s, left = time.monotonic(), [piece for piece in pieces if piece]
        twice_bytes = 2 * sum(map(len, left))
        try:
            while left:
                sent = self._send_some(left)
                self.taken_bytes += sent
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if sent:
                    left[0] = memoryview(left[0])[sent:]
                if left and self._plain:  # the kernel's buffer is full
                    self._wait_to_send(self._writable)
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        fast = time.monotonic() - began_s < FAST_SEND_S
        self.batch_bytes = max(self.batch_bytes, min(twice_bytes, MAX_BATCH_BYTES)) if fast else SMALL_PIECE_BYTES

    def _send_some(self, left: list[Piece]) -> int:
        try:
            return self._sock.sendmsg(left) if self._plain else self._sock.send(left[0])
        except ssl.SSLWantReadError:
            self._wait_to_send(self._readable)
        except ssl.SSLWantWriteError:
            self._wait_to_send(self._writable)
        except BlockingIOError:
            pass
        return 0

    def _wait_to_send(self, poll: select.poll) -> None:
        """Wait until the kernel may take more bytes, for one poll interval at most."""
        poll.poll(POLL_INTERVAL_S * 1000)
        now_s = time.monotonic()
        if now_s - self._observed_s >= POLL_INTERVAL_S:
            self._observe(now_s)
            self._raise_if_stalled(now_s)
            if self.transfer is not None and self.transfer.content_bytes:
                self.transfer.guard.check()

    def _observe(self, now_s: float) -> bool:
        """Ask the kernel what is acknowledged and report it; return whether there was progress since the last time."""
        before, self._unacked = self._unacked, unacknowledged_bytes(self._sock)
        acknowledged = self._unacked is not None and self._unacked < (before or 0)
        progress = acknowledged or self.taken_bytes > self._observed_taken
        self._observed_taken, self._observed_s = self.taken_bytes, now_s
        if progress:
            self._progress_s = now_s
            if self.transfer is not None:
                self.transfer.acknowledged(self.taken_bytes - (self._unacked or 0) - self.body_from)
        return progress

    def _raise_if_stalled(self, now_s: float) -> None:
        if now_s - self._progress_s >= self._stall_s:
            raise httpx.WriteTimeout(f"no byte was acknowledged for {self._stall_s:g} s")

    def receive(self) -> bytes:
        """Return the bytes that have come, or no bytes at the end of the stream.

        Raises:
            Interrupted: by the guard, if the request has content and the response had its grace period.
            httpx.ReadTimeout: nothing came within the timeout or before the guard's deadline.
            httpx.WriteTimeout: the link has stalled.
            httpx.ReadError: the connection is broken.
        """
        try:
            if self._plain:  # TLS may hold decrypted bytes that a poll does not see
                self._wait_for_response(self._readable)
            while True:
                try:
                    return self._sock.recv(RECEIVE_BYTES)
                except (BlockingIOError, ssl.SSLWantReadError):
                    self._wait_for_response(self._readable)
                except ssl.SSLWantWriteError:
                    self._wait_for_response(self._writable)
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def _wait_for_response(self, poll: select.poll) -> None:
        now_s = time.monotonic()
        until_s, interval_s = now_s + self.read_timeout_s, POLL_INTERVAL_S
        while not poll.poll(max(0.0, min(interval_s, until_s - now_s)) * 1000):
            now_s = time.monotonic()
            if interval_s == POLL_INTERVAL_S and self._observe(now_s):
                until_s = now_s + self.read_timeout_s  # the timeout counts from when the request has arrived
            interval_s = POLL_INTERVAL_S if self._unacked else IDLE_POLL_INTERVAL_S
            if now_s >= until_s:
                raise httpx.ReadTimeout("timed out")
            self._check_guard(now_s)

    def _check_guard(self, now_s: float) -> None:
        """Ask the guard, during the wait for the response, whether to go on."""
        if (transfer := self.transfer) is None:
            return
        if transfer.guard.remaining_s() <= 0.0:
            raise httpx.ReadTimeout("no response until the deadline")
        if not transfer.content_bytes:
            return
        if self._unacked:
            self._raise_if_stalled(now_s)
        try:
            transfer.guard.check()
        except Interrupted as interruption:
            if interruption.stop is Stop.DEADLINE:
                raise httpx.ReadTimeout("no response until the deadline") from interruption
            self._stopped_s = self._stopped_s or now_s
            if now_s - self._stopped_s >= (STOP_SENDING_GRACE_S if self._unacked else STOP_RESPONSE_GRACE_S):
                raise

    def is_reusable(self) -> bool:
        """Return whether the idle connection is open and the peer has sent nothing on it."""
        return not self._readable.poll(0)

    def abort(self) -> None:
        """Close the connection and drop its unacknowledged bytes: other connections need the link."""
        if unacknowledged_bytes(self._sock):
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()
