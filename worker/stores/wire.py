"""HTTP/1.1 over sockets of its own: an `httpx` transport for one origin and bodies of megabytes.

httpx's own transport copies what a partial send leaves over, makes an event of every piece and sends the head by
itself; on a slice that is more CPU than the kernel takes for it. This one hands the pieces to the socket from where
they are, the first together with the head. It speaks to one origin, knows no proxy, and raises httpx's errors, phase by
phase: what never left is told apart from what may have arrived.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING

import httpx

from worker.stores.wire_answer import Answer, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PORTS = {"http": 80, "https": 443}
_GATHERED_BYTES = 16 * 1024
"""Smaller pieces wait for the next one and go along with it."""

Piece = bytes | memoryview


class Connection:
    """One connection, in use by one request or idle."""

    __slots__ = ("_gathers", "idle_since_s", "received", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.idle_since_s = 0.0
        self._gathers = not isinstance(sock, ssl.SSLSocket)

    def send(self, *pieces: Piece) -> None:
        """Send all of it.

        Raises:
            httpx.WriteTimeout: no byte was taken for so long.
            httpx.WriteError: the connection is broken.
        """
        if not self._gathers and len(pieces) > 1:
            pieces = (b"".join(pieces),) if sum(map(len, pieces)) <= _GATHERED_BYTES else pieces
        left = [memoryview(piece) for piece in pieces]
        try:
            while left:
                sent = self.sock.sendmsg(left) if self._gathers else self.sock.send(left[0])
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if sent:
                    left[0] = left[0][sent:]
        except TimeoutError as error:
            raise httpx.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpx.WriteError(str(error)) from error

    def receive(self) -> bytes:
        """Return what has come, nothing at the end.

        Raises:
            httpx.ReadTimeout: nothing came for so long.
            httpx.ReadError: the connection is broken.
        """
        try:
            return self.sock.recv(65536)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def is_quiet(self) -> bool:
        """Say whether the other side has neither closed it nor said what nobody asked for."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close it."""
        self.sock.close()


class Wire(httpx.BaseTransport):
    """Keeps connections to one origin alive. Safe to be used by several threads."""

    def __init__(self, origin: str, trust: ssl.SSLContext, *, idle_max_s: float, keep: int) -> None:
        """Connect to nothing yet.

        Args:
            origin: scheme, host and port of every request.
            trust: whom to believe; not asked without TLS.
            idle_max_s: connections that were idle for longer are not used again.
            keep: how many idle ones are kept.
        """
        url = httpx.URL(origin)
        self._host = url.raw_host.decode("ascii")
        self._address = (self._host, url.port or _PORTS[url.scheme])
        self._trust = trust if url.scheme == "https" else None
        self._idle_max_s, self._keep = idle_max_s, keep
        self._idle: deque[Connection] = deque()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its body is read from the connection as the response's stream is.

        The timeouts in the request's extensions are read when their phase begins.

        Raises:
            httpx.TransportError: no answer came; `ConnectError` and `ConnectTimeout` where nothing was sent.
        """
        timeouts: Mapping[str, float] = request.extensions["timeout"]
        head = _head(request)
        connection = self._take() or self._connect(timeouts)
        try:
            whole = self._send(connection, head, request, timeouts)
            connection.sock.settimeout(timeouts["read"])
            answer = read_head(connection, request.method)
        except BaseException:
            connection.close()
            raise
        answer.reusable = answer.reusable and whole
        stream = _Body(self, connection, answer)
        return httpx.Response(answer.status, headers=answer.headers, stream=stream, request=request)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end for the next request."""
        now_s = connection.idle_since_s = time.monotonic()
        self._idle.append(connection)
        while self._closed or len(self._idle) > self._keep or self._is_stale(now_s):
            try:
                self._idle.popleft().close()
            except IndexError:
                return

    def _is_stale(self, now_s: float) -> bool:
        try:
            return now_s - self._idle[0].idle_since_s > self._idle_max_s
        except IndexError:
            return False

    def close(self) -> None:
        """Close what is idle, and what is in use when its request ends."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()

    def _take(self) -> Connection | None:
        """Return the connection that was used last, if it can be used again."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.idle_since_s <= self._idle_max_s and connection.is_quiet():
                return connection
            connection.close()

    def _connect(self, timeouts: Mapping[str, float]) -> Connection:
        sock = None
        try:
            sock = socket.create_connection(self._address, timeouts["connect"])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._trust is not None:
                sock = self._trust.wrap_socket(sock, server_hostname=self._host)
        except (OSError, ValueError) as error:  # ValueError: a host that is no name
            if sock is not None:
                sock.close()
            kind = httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
            raise kind(str(error)) from error
        return Connection(sock)

    def _send(
        self, connection: Connection, head: bytes, request: httpx.Request, timeouts: Mapping[str, float]
    ) -> bool:  # fmt: skip
        """Send head and body; say whether all of it went. A store may answer and close before it has read the body."""
        connection.sock.settimeout(timeouts["write"])
        gathered = [head]
        try:
            for piece in _pieces(request):
                if len(piece) < _GATHERED_BYTES:
                    gathered.append(bytes(piece))
                    continue
                connection.send(b"".join(gathered), piece)
                gathered.clear()
            if gathered:
                connection.send(b"".join(gathered))
        except httpx.WriteError:
            return False
        return True


class _Body(httpx.SyncByteStream):
    """The body of an answer; closed before its end, it closes the connection."""

    def __init__(self, wire: Wire, connection: Connection, answer: Answer) -> None:
        self._wire, self._connection, self._answer = wire, connection, answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.body(self._connection)

    def close(self) -> None:
        if self._answer.whole and self._answer.reusable and not self._connection.received:
            self._wire.give_back(self._connection)
        else:
            self._connection.close()


def _head(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    head = b"\r\n".join([*lines, b"", b""])
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
        raise httpx.LocalProtocolError("a header of the request holds a line break or a NUL")
    if "Transfer-Encoding" in request.headers:
        raise httpx.LocalProtocolError("a body needs its length")
    return head


def _pieces(request: httpx.Request) -> Iterator[Piece]:
    stream = request.stream
    assert isinstance(stream, httpx.SyncByteStream)
    yield from stream
