"""A link of a given speed to a server on loopback: a relay in user space, with socket buffers of a given size.

All connections share the link's speed in turn. The relay delays requests only; it passes responses on at once. A relay
that buffers reads all bytes as they come and passes them on later, as a proxy does: a byte that it has acknowledged
need not have crossed the link. A relay that does not buffer reads no more than it can pass on: between the sender and
the link are two socket buffers.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
PIECE_MAX_BYTES = 64 * KIB
PIECE_MIN_BYTES = KIB
TURN_S = 0.02
"""The time for which a piece occupies the link."""
BURST_S = 0.1
"""The most of the link's time that a late thread may make up for."""
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with a time of 0: close() sends RST


@dataclass(frozen=True, slots=True)
class Link:
    """The properties of a link.

    Attributes:
        rate_bytes_per_s: over all connections.
        socket_buffer_bytes: of the sockets that carry requests; None: the system's default.
        buffers: whether the relay reads all bytes as they come and passes them on later.
    """

    rate_bytes_per_s: float
    socket_buffer_bytes: int | None = None
    buffers: bool = False


class Relay:
    """Passes connections to ``port`` (the attribute) on to a server on loopback."""

    def __init__(self, target_port: int, link: Link) -> None:
        """Listen at once."""
        self.link = link
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.socket()
        if link.socket_buffer_bytes is not None:  # an accepted socket inherits it
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, link.socket_buffer_bytes)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(256)
        self.port: int = self._listener.getsockname()[1]
        self._turn = threading.Lock()
        self._free_s = 0.0
        self._closed = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._start(self._accept)

    def close(self) -> None:
        """End all connections and stop listening."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._sockets):
            self._reset(each)

    def _start(self, run: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=run, args=args, name="relay", daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket()
            if self.link.socket_buffer_bytes is not None:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.link.socket_buffer_bytes)
            self._sockets |= {client, server}
            try:
                server.connect(self._target)
            except OSError:
                self._end(client, server)
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        answers = self._start(self._answers, client, server)
        self._requests(client, server)
        answers.join()
        self._end(client, server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            if self.link.buffers:
                self._pass_on_later(client, server)
            else:
                while piece := client.recv(self._piece_bytes):
                    self._carry(len(piece))
                    server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(client, server)

    def _pass_on_later(self, client: socket.socket, server: socket.socket) -> None:
        came: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._start(self._read_all, client, server, came)
        while (piece := came.get()) is not None:
            for start in range(0, len(piece), self._piece_bytes):
                part = piece[start : start + self._piece_bytes]
                self._carry(len(part))
                server.sendall(part)

    def _read_all(self, client: socket.socket, server: socket.socket, came: queue.SimpleQueue[bytes | None]) -> None:
        try:
            while piece := client.recv(PIECE_MAX_BYTES):
                came.put(piece)
        except OSError:  # the connection has ended
            self._end(client, server)
        came.put(None)

    def _answers(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := server.recv(PIECE_MAX_BYTES):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return
        self._end(client, server)

    @property
    def _piece_bytes(self) -> int:
        return max(PIECE_MIN_BYTES, min(PIECE_MAX_BYTES, int(self.link.rate_bytes_per_s * TURN_S)))

    def _carry(self, size_bytes: int) -> None:
        """Occupy the link for so many bytes, after the pieces that came before."""
        with self._turn:
            now_s = time.monotonic()
            begin_s = max(self._free_s, now_s - BURST_S)
            self._free_s = until_s = begin_s + size_bytes / self.link.rate_bytes_per_s
        if self._closed.wait(max(0.0, until_s - now_s)):
            raise OSError("closed")

    def _end(self, *sockets: socket.socket) -> None:
        for each in sockets:
            self._reset(each)
            self._sockets.discard(each)

    def _reset(self, each: socket.socket) -> None:
        with suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in recv
        each.close()
