"""HTTP/1.1 over sockets of its own: an `httpx` transport for one origin and bodies of megabytes.

httpx's own transport copies what a partial send leaves over, makes an event of every piece and sends the head by
itself; on a slice that is more CPU than the kernel takes for it. This one hands the pieces to the socket from where
they are, the first together with the head, and several at once where they go fast. It speaks to one origin, knows no
proxy, and raises httpx's errors, phase by phase: what never left is told apart from what may have arrived.
"""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

import httpx

from worker.http.connection import GATHERED_BYTES, Connection, Piece, Transfer
from worker.http.deadline import Deadline
from worker.http.response import Answer, read_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

_PORTS = {"http": 80, "https": 443}


class HttpTransport(httpx.BaseTransport):
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

        The timeouts in the request's extensions are read when their phase begins; `write` is how long no byte may be
        acknowledged. A `Transfer` among them has its guard asked meanwhile.

        Raises:
            httpx.TransportError: no answer came; `ConnectError` and `ConnectTimeout` where nothing was sent.
            Interrupted: by the guard.
        """
        timeouts: Mapping[str, float] = request.extensions["timeout"]
        transfer: Transfer = request.extensions.get("transfer") or Transfer(Deadline(math.inf))
        head, length_bytes = _head(request)
        connection = self._take() or self._connect(timeouts)
        try:
            connection.begin(transfer, timeouts["write"], len(head))
            whole = _send(connection, head, request, length_bytes)
            connection.answer_s = timeouts["read"]
            answer = read_head(connection, request.method)
        except BaseException:
            connection.abort()
            raise
        if whole:
            transfer.answered()
        answer.reusable = answer.reusable and whole
        stream = _Body(self, connection, answer)
        response = httpx.Response(answer.status, headers=answer.headers, stream=stream, request=request)
        if answer.ascii:
            response.headers.encoding = "ascii"  # what httpx would find out, header by header, at the first look
        return response

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end for the next request."""
        now_s = connection.idle_since_s = time.monotonic()
        connection.transfer = None
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


class _Body(httpx.SyncByteStream):
    """The body of an answer; closed before its end, it closes the connection."""

    def __init__(self, wire: HttpTransport, connection: Connection, answer: Answer) -> None:
        self._wire, self._connection, self._answer = wire, connection, answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.body(self._connection)

    def close(self) -> None:
        if self._answer.whole and self._answer.reusable and not self._connection.received:
            self._wire.give_back(self._connection)
        else:
            self._connection.close()


def _head(request: httpx.Request) -> tuple[bytes, int]:
    """Return the head, and the length of the body in bytes as the head says it."""
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


def _send(connection: Connection, head: bytes, request: httpx.Request, length_bytes: int) -> bool:
    """Send head and body; say whether all of it went. A store may answer and close before it has read the body."""
    assert isinstance(request.stream, httpx.SyncByteStream)
    small: list[bytes] = [head]
    gathered: list[Piece] = []
    gathered_bytes, part_bytes = 0, length_bytes // 3  # whoever stops the body still finds its middle
    try:
        for piece in request.stream:
            length_bytes -= len(piece)
            if len(piece) < GATHERED_BYTES:
                small.append(bytes(piece))
                continue
            gathered += (b"".join(small), piece)
            small = []
            gathered_bytes += len(piece)
            if gathered_bytes >= min(connection.batch_bytes, part_bytes) and not 0 < length_bytes < GATHERED_BYTES:
                connection.send(*gathered)
                gathered, gathered_bytes = [], 0
        connection.send(*gathered, b"".join(small))
    except httpx.WriteError:
        return False
    return True
