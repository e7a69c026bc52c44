"""httpx's own transport, for stores behind a proxy, over connections that notice when the link stalls.

httpx's own connections block in the socket until a timeout, and check neither the guard nor the kernel. This transport
gives httpx a `httpcore.NetworkStream` over `SocketConnection` instead.
"""

from __future__ import annotations

import math
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpcore
import httpx

from worker.http.connection import SocketConnection, Transfer
from worker.http.deadline import Deadline

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping

    from worker.urls import ProxyUrl


def for_httpx(proxy: ProxyUrl | None) -> httpx.Proxy | None:
    """Return the proxy in the form that httpx takes: user and password apart from the URL."""
    if proxy is None:
        return None
    password = "" if proxy.password is None else proxy.password.reveal()
    return httpx.Proxy(str(proxy), auth=(proxy.user or "", password) if proxy.user or password else None)


class _Current(threading.local):
    """The request that this thread sends; httpx does not give it to its connections.

    Attributes:
        transfer: the request.
        timeouts: seconds by phase.
        connection: the connection that was written to last.
        in_body: the request's head was sent.
    """

    transfer: Transfer = Transfer(Deadline(math.inf))
    timeouts: Mapping[str, float]
    connection: SocketConnection | None = None
    in_body: bool = False


class ProxyTransport(httpx.HTTPTransport):
    """Reaches one origin through a proxy. Several threads may use it, each with one request at a time."""

    def __init__(self, proxy: ProxyUrl, ssl_context: ssl.SSLContext, *, idle_timeout_s: float, max_idle: int) -> None:
        """Connect to nothing yet.

        Args:
            proxy: its URL and credentials.
            ssl_context: for TLS with the origin; not used for http.
            idle_timeout_s: a connection that was idle for longer is not used again.
            max_idle: how many idle connections to keep.
        """
        # Each sending thread has one connection: a limit would only make threads wait for each other.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=max_idle, keepalive_expiry=idle_timeout_s)
        super().__init__(verify=ssl_context, proxy=for_httpx(proxy), trust_env=False, limits=limits)
        self._current = _Current()
        self._pool._network_backend = _Backend(self._current)  # noqa: SLF001 - httpx has no argument for it

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, as `HttpTransport.handle_request` does."""
        current = self._current
        current.timeouts = request.extensions["timeout"]
        current.transfer = request.extensions.get("transfer") or Transfer(Deadline(math.inf))
        current.connection, current.in_body = None, False
        body = _Body(cast("httpx.SyncByteStream", request.stream), current)
        request.stream = body
        response = super().handle_request(request)
        if body.whole:
            current.transfer.answered()
        return response


class _Body(httpx.SyncByteStream):
    """The body of a request; records where it begins on the connection, and whether it was read to its end."""

    def __init__(self, stream: httpx.SyncByteStream, current: _Current) -> None:
        self.whole = False
        self._stream, self._current = stream, current

    def __iter__(self) -> Iterator[bytes]:
        self._current.in_body = True
        if (connection := self._current.connection) is not None:
            connection.body_from = connection.taken_bytes
        yield from self._stream
        self.whole = True


class _Backend(httpcore.SyncBackend):
    def __init__(self, current: _Current) -> None:
        self._current = current

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        plain = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(plain, self._current)


class _Stream(httpcore.NetworkStream):
    """A `SocketConnection` in the form that httpcore takes."""

    def __init__(self, plain: httpcore.NetworkStream, current: _Current) -> None:
        self._plain, self._current = plain, current
        self._sock: socket.socket = plain.get_extra_info("socket")
        self._connection = SocketConnection(self._sock)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - `begin` sets it
        current, connection = self._current, self._connection
        if connection.transfer is not current.transfer:
            connection.begin(current.transfer, current.timeouts["write"])
        current.connection = connection
        with _errors_of_httpcore():
            connection.send(buffer)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # before the body, only the proxy responds
        limit_s = math.inf if self._current.in_body else self._current.timeouts["connect"]
        self._connection.read_timeout_s = limit_s if timeout is None else min(limit_s, timeout)
        with _errors_of_httpcore():
            if not self._connection.received:
                self._connection.received += self._connection.receive()
        taken = bytes(self._connection.received[:max_bytes])
        del self._connection.received[:max_bytes]
        return taken

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Begin TLS; within the TLS of a proxy use httpx's own connection, which does not notice a stalled link."""
        within = isinstance(self._sock, ssl.SSLSocket)
        encrypted = self._plain.start_tls(ssl_context, server_hostname, timeout)
        return encrypted if within else _Stream(encrypted, self._current)

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)

    def close(self) -> None:
        if self._connection.transfer is self._current.transfer:
            self._connection.abort()  # closes in order if all bytes are acknowledged
        self._plain.close()


@contextmanager
def _errors_of_httpcore() -> Iterator[None]:
    """Turn an error of httpx into the httpcore error of the same name, which httpx expects from a connection."""
    try:
        yield
    except httpx.TransportError as error:
        raise getattr(httpcore, type(error).__name__)(str(error)) from error
