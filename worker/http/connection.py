"""One connection to a store: sends and receives without ever blocking for long, and notices when the link stands still.

That the kernel has taken a byte says nothing of the link: its buffer may hold a whole slice. What the peer has
acknowledged is asked of the kernel (`TIOCOUTQ`), only where there is something to wait for. An acknowledged byte has
reached the peer's kernel or a proxy: it shows that the link moves, not that the store has it.
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

GATHERED_BYTES = 16 * 1024
"""Smaller pieces wait for a larger one and go along with it; a larger one waits for the rest, if that is as small."""
RECEIVED_BYTES = 64 * 1024
BATCH_MOST_BYTES = 512 * 1024
"""What is gathered for one send where that goes fast: each costs CPU time, and a large one is as soon on its way."""
FAST_S = 0.05
"""A send that takes longer is none of these."""
POLL_INTERVAL_S = 0.2
"""How often the kernel is asked while bytes are under way. Linux calls a socket writable only when a third of its
buffer is free, and on a slow link with a large buffer that takes minutes: a send is tried again this often."""
IDLE_POLL_INTERVAL_S = 1.0
"""How often the guard is asked while only the answer is waited for."""
STOPPED_SENDING_S = 1.0
"""A stop that comes when the kernel has all bytes waits so long for those that are not acknowledged yet."""
STOPPED_S = 5.0
"""One that comes when all are acknowledged waits so long for the answer: what it tells need not be sent again."""

Piece = bytes | memoryview
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time at all: close() drops what was not sent


@dataclass(slots=True)
class Transfer:
    """One request under way, as its sender sees it.

    Attributes:
        guard: asked between waits, and told how far the content is.
        content_bytes: bytes of a file in the request's body. Without any, a stop does not end the wait for the answer.
        offset_bytes: how many bytes of the body come before them.
    """

    guard: Guard
    content_bytes: int = 0
    offset_bytes: int = 0

    def acknowledged(self, body_bytes: int) -> None:
        """Report that so many bytes of the body are acknowledged."""
        if self.content_bytes:
            self.guard.acknowledged(min(max(0, body_bytes - self.offset_bytes), self.content_bytes))

    def answered(self) -> None:
        """Report that the store has answered after all of the body was sent."""
        self.acknowledged(self.offset_bytes + self.content_bytes)


def unacknowledged_bytes(sock: socket.socket) -> int | None:
    """Return how many bytes of a socket the peer has not acknowledged; None where the kernel does not say it."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # ValueError: it is closed
        return None


class Connection:
    """One connection, in use by one request or idle.

    The socket never blocks: most calls need not wait, and one that must has its own poll, which says for how long.

    Attributes:
        answer_s: how long to wait for anything from the peer, from when it has acknowledged all bytes.
        batch_bytes: how much to gather for one send: more, as long as the other side takes it fast.
        body_from: how many bytes of the request, as they were sent, come before its body.
        idle_since_s: by the monotonic clock.
        received: what has come and was not read yet.
        taken_bytes: how many bytes of the request the kernel has taken.
        transfer: the request; None between two.
    """

    __slots__ = (
        "_moved_s", "_observed_s", "_plain", "_readable", "_seen_taken", "_sock", "_stall_s", "_stopped_s", "_unacked",
        "_writable", "answer_s", "batch_bytes", "body_from", "idle_since_s", "received", "taken_bytes", "transfer",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        self._sock = sock
        self._plain = not isinstance(sock, ssl.SSLSocket)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable.register(sock, select.POLLOUT)
        self.batch_bytes = GATHERED_BYTES
        self.answer_s = 0.0
        self.received = bytearray()
        self.idle_since_s = 0.0
        self.transfer: Transfer | None = None

    def begin(self, transfer: Transfer, stall_s: float, body_from: int = 0) -> None:
        """Carry this request from now on; with no byte acknowledged for ``stall_s`` seconds the link stands still."""
        self.transfer, self._stall_s, self.body_from = transfer, stall_s, body_from
        self.taken_bytes = self._seen_taken = 0
        self._unacked: int | None = 0
        self._moved_s = self._observed_s = time.monotonic()
        self._stopped_s: float | None = None
        transfer.acknowledged(0)

    def send(self, *pieces: Piece) -> None:
        """Send all of it.

        Raises:
            Interrupted: by the guard.
            httpx.WriteTimeout: no byte was acknowledged for so long.
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
                if left and self._plain:  # the kernel has taken what it had room for
                    self._wait_to_send(self._writable)
        except OSError as error:
            raise httpx.WriteError(str(error)) from error
        fast = time.monotonic() - began_s < FAST_S
        self.batch_bytes = max(self.batch_bytes, min(twice_bytes, BATCH_MOST_BYTES)) if fast else GATHERED_BYTES

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
        """Wait until the kernel may take more, or for so long that it is worth while to try."""
        poll.poll(POLL_INTERVAL_S * 1000)
        now_s = time.monotonic()
        if now_s - self._observed_s >= POLL_INTERVAL_S:
            self._observe(now_s)
            self._raise_if_stalled(now_s)
            if self.transfer is not None and self.transfer.content_bytes:
                self.transfer.guard.check()

    def _observe(self, now_s: float) -> bool:
        """Find out how much is acknowledged, and report it; says whether there was progress since the last time."""
        before, self._unacked = self._unacked, unacknowledged_bytes(self._sock)
        fewer = self._unacked is not None and self._unacked < (before or 0)
        moved = fewer or self.taken_bytes > self._seen_taken
        self._seen_taken, self._observed_s = self.taken_bytes, now_s
        if moved:
            self._moved_s = now_s
            if self.transfer is not None:
                self.transfer.acknowledged(self.taken_bytes - (self._unacked or 0) - self.body_from)
        return moved

    def _raise_if_stalled(self, now_s: float) -> None:
        if now_s - self._moved_s >= self._stall_s:
            raise httpx.WriteTimeout(f"no byte was acknowledged for {self._stall_s:g} s")

    def receive(self) -> bytes:
        """Return what has come, nothing at the end.

        Raises:
            Interrupted: by the guard, if there is content in the request; not before there was time for the answer.
            httpx.ReadTimeout: nothing came for so long, or until the guard's deadline.
            httpx.WriteTimeout: no byte of the request's content was acknowledged for so long.
            httpx.ReadError: the connection is broken.
        """
        try:
            if self._plain:  # TLS may hold back what no poll sees
                self._wait_for_answer(self._readable)
            while True:
                try:
                    return self._sock.recv(RECEIVED_BYTES)
                except (BlockingIOError, ssl.SSLWantReadError):
                    self._wait_for_answer(self._readable)
                except ssl.SSLWantWriteError:
                    self._wait_for_answer(self._writable)
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def _wait_for_answer(self, poll: select.poll) -> None:
        now_s = time.monotonic()
        until_s, interval_s = now_s + self.answer_s, POLL_INTERVAL_S
        while not poll.poll(max(0.0, min(interval_s, until_s - now_s)) * 1000):
            now_s = time.monotonic()
            if interval_s == POLL_INTERVAL_S and self._observe(now_s):
                until_s = now_s + self.answer_s  # an answer takes its time from when the request has arrived
            interval_s = POLL_INTERVAL_S if self._unacked else IDLE_POLL_INTERVAL_S
            if now_s >= until_s:
                raise httpx.ReadTimeout("timed out")
            self._heed(now_s)

    def _heed(self, now_s: float) -> None:
        """Ask the guard while the answer is waited for."""
        if (transfer := self.transfer) is None:
            return
        if transfer.guard.remaining_s() <= 0.0:
            raise httpx.ReadTimeout("no answer until the deadline")
        if not transfer.content_bytes:
            return
        if self._unacked:
            self._raise_if_stalled(now_s)
        try:
            transfer.guard.check()
        except Interrupted as interruption:
            if interruption.stop is Stop.DEADLINE:
                raise httpx.ReadTimeout("no answer until the deadline") from interruption
            self._stopped_s = self._stopped_s or now_s
            if now_s - self._stopped_s >= (STOPPED_SENDING_S if self._unacked else STOPPED_S):
                raise

    def is_quiet(self) -> bool:
        """Say whether the other side has neither closed it nor said what nobody asked for."""
        return not self._readable.poll(0)

    def abort(self) -> None:
        """Close it in the middle of a request: what is not acknowledged would take the link from others for nothing."""
        if unacknowledged_bytes(self._sock):
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()

    def close(self) -> None:
        """Close it."""
        self._sock.close()
