"""An httpx transport for HTTP/1.1 requests with bodies of megabytes to one origin.

httpx's own transport copies the rest of a partial send, makes an event of every piece and sends the head separately.
For a slice this costs more CPU than the kernel's work. This transport gives the pieces to the socket without a copy,
the first together with the head, and several at once on a fast link. It knows no proxy. It raises httpx's errors, so
that the caller can tell a request that was never sent from one that may have arrived.
"""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

import httpx

from worker.http.connection import SMALL_PIECE_BYTES, Piece, SocketConnection, Transfer
from worker.http.deadline import Deadline
from worker.http.response import ResponseHead, read_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

_PORTS = {"http": 80, "https": 443}


class HttpTransport(httpx.BaseTransport):
    """Keeps connections to one origin alive. Safe to be used by several threads."""

    def __init__(self, origin: str, ssl_context: ssl.SSLContext, *, idle_timeout_s: float, max_idle: int) -> None:
        """Connect to nothing yet.

        Args:
            origin: scheme, host and port of every request.
            ssl_context: for https; not used for http.
            idle_timeout_s: a connection that was idle for longer is not used again.
            max_idle: how many idle connections to keep.
        """
        url = httpx.URL(origin)
        self._host = url.raw_host.decode("ascii")
        self._address = (self._host, url.port or _PORTS[url.scheme])
        self._ssl_context = ssl_context if url.scheme == "https" else None
        self._idle_timeout_s, self._max_idle = idle_timeout_s, max_idle
        self._idle: deque[SocketConnection] = deque()
        self._closed = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the response's head; the caller reads the body from the response's stream.

        Each timeout in the request's extensions is read when its phase begins. `write` is the longest time without an
        acknowledged byte. A `Transfer` in the extensions names the guard to check.

        Raises:
            httpx.TransportError: no response came; `ConnectError` and `ConnectTimeout` if nothing was sent.
            Interrupted: by the guard.
        """
        timeouts: Mapping[str, float] = request.extensions["timeout"]
        transfer: Transfer = request.extensions.get("transfer") or Transfer(Deadline(math.inf))
        request_head, length_bytes = _head(request)
        connection = self._take() or self._connect(timeouts)
        try:
            connection.begin(transfer, timeouts["write"], len(request_head))
            whole = _send(connection, request_head, request, length_bytes)
            connection.read_timeout_s = timeouts["read"]
            head = read_head(connection, request.method)
        except BaseException:
            connection.abort()
            raise
        if whole:
            transfer.answered()
        head.reusable = head.reusable and whole
        stream = _Body(self, connection, head)
        response = httpx.Response(head.status, headers=head.headers, stream=stream, request=request)
        if head.ascii:
            response.headers.encoding = "ascii"  # else httpx tries each header in turn
        return response

    def release(self, connection: SocketConnection) -> None:
        """Keep a connection for the next request, once its response was read to the end."""
        now_s = connection.idle_since_s = time.monotonic()
        connection.transfer = None
        self._idle.append(connection)
        while self._closed or len(self._idle) > self._max_idle or self._is_stale(now_s):
            try:
                self._idle.popleft().close()
            except IndexError:
                return

    def _is_stale(self, now_s: float) -> bool:
        try:
            return now_s - self._idle[0].idle_since_s > self._idle_timeout_s
        except IndexError:
            return False

    def close(self) -> None:
        """Close the idle connections now, and each other one when its request ends."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()

    def _take(self) -> SocketConnection | None:
        """Return the idle connection that was used last; None if no idle connection can be used."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - connection.idle_since_s <= self._idle_timeout_s and connection.is_reusable():
                return connection
            connection.close()

    def _connect(self, timeouts: Mapping[str, float]) -> SocketConnection:
        sock = None
        try:
            sock = socket.create_connection(self._address, timeouts["connect"])
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._ssl_context.wrap_socket(sock, server_hostname=self._host)
        except (OSError, ValueError) as error:  # ValueError: the host is not a valid name
            if sock is not None:
                sock.close()
            kind = httpx.ConnectTimeout if isinstance(error, TimeoutError) else httpx.ConnectError
            raise kind(str(error)) from error
        return SocketConnection(sock)


class _Body(httpx.SyncByteStream):
    """The body of a response. If it is closed before its end, it closes the connection."""

    def __init__(self, transport: HttpTransport, connection: SocketConnection, head: ResponseHead) -> None:
        self._transport, self._connection, self._head = transport, connection, head

    def __iter__(self) -> Iterator[bytes]:
        yield from self._head.body(self._connection)

    def close(self) -> None:
        if self._head.whole and self._head.reusable and not self._connection.received:
            self._transport.release(self._connection)
        else:
            self._connection.close()


def _head(request: httpx.Request) -> tuple[bytes, int]:
    """Return the request's head, and the length of the body in bytes that it states."""
    lines, length_bytes = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)], 0
    for name, value in request.headers.raw:
        lines.append(b"%b: %b" % (name, value))
        match name.lower():
            case b"content-length":
                length_bytes = int(value)
            case b"transfer-encoding":
                raise httpx.LocalProtocolError("a body needs its length")
    head = b"\r\n".join([*lines, b"", b""])
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
        raise httpx.LocalProtocolError("a header of the request holds a line break or a NUL")
    return head, length_bytes


def _send(connection: SocketConnection, head: bytes, request: httpx.Request, length_bytes: int) -> bool:
    """Send head and body; return False if the peer closed the connection first: it may have sent a response before."""
    assert isinstance(request.stream, httpx.SyncByteStream)
    small: list[bytes] = [head]
    batch: list[Piece] = []
    batch_bytes, third_bytes = 0, length_bytes // 3  # a stop must be able to end the body in its middle
    try:
        for piece in request.stream:
            length_bytes -= len(piece)
            if len(piece) < SMALL_PIECE_BYTES:
                small.append(bytes(piece))
                continue
            batch += (b"".join(small), piece)
            small = []
            batch_bytes += len(piece)
            if batch_bytes >= min(connection.batch_bytes, third_bytes) and not 0 < length_bytes < SMALL_PIECE_BYTES:
                connection.send(*batch)
                batch, batch_bytes = [], 0
        connection.send(*batch, b"".join(small))
    except httpx.WriteError:
        return False
    return True
