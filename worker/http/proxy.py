"""httpx's own transport, for stores behind a proxy, over connections that notice when the link stands still.

httpx blocks in the socket for as long as a timeout says, and asks neither the guard nor the kernel meanwhile. Its
connections are therefore ours (`httpcore.NetworkStream` over `Connection`), and all else is its own.
"""

from __future__ import annotations

import math
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpcore
import httpx

from worker.http.connection import Connection, Transfer
from worker.http.deadline import Deadline

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping

    from worker.urls import ProxyUrl


def for_httpx(proxy: ProxyUrl | None) -> httpx.Proxy | None:
    """Return the proxy, if there is one, as httpx wants it: its user and password apart from its URL."""
    if proxy is None:
        return None
    password = "" if proxy.password is None else proxy.password.reveal()
    return httpx.Proxy(str(proxy), auth=(proxy.user or "", password) if proxy.user or password else None)


class _Current(threading.local):
    """The request that this thread has under way: httpx tells its connections nothing of it.

    Attributes:
        transfer: it.
        timeouts: seconds by phase.
        connection: what was written to last.
        in_body: its head was sent.
    """

    transfer: Transfer = Transfer(Deadline(math.inf))
    timeouts: Mapping[str, float]
    connection: Connection | None = None
    in_body: bool = False


class ProxyTransport(httpx.HTTPTransport):
    """Reaches one origin through a proxy. Safe to be used by several threads, each with one request at a time."""

    def __init__(self, proxy: ProxyUrl, trust: ssl.SSLContext, *, idle_max_s: float, keep: int) -> None:
        """Connect to nothing yet.

        Args:
            proxy: where it is, and what it is shown.
            trust: whom to believe that it is the origin; not asked without TLS.
            idle_max_s: connections that were idle for longer are not used again.
            keep: how many idle ones are kept.
        """
        # As many connections as threads that send: a limit here would only make them wait for each other.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=keep, keepalive_expiry=idle_max_s)
        super().__init__(verify=trust, proxy=for_httpx(proxy), trust_env=False, limits=limits)
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
    """The body of a request; knows when its first byte is due, and whether all were taken."""

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
    """A connection as httpx wants it."""

    def __init__(self, plain: httpcore.NetworkStream, current: _Current) -> None:
        self._plain, self._current = plain, current
        self._sock: socket.socket = plain.get_extra_info("socket")
        self._connection = Connection(self._sock)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the guard has its own
        current, connection = self._current, self._connection
        if connection.transfer is not current.transfer:
            connection.begin(current.transfer, current.timeouts["write"])
        current.connection = connection
        with _errors_of_httpcore():
            connection.send(buffer)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # before the body, it is the proxy alone that answers
        limit_s = math.inf if self._current.in_body else self._current.timeouts["connect"]
        self._connection.answer_s = limit_s if timeout is None else min(limit_s, timeout)
        with _errors_of_httpcore():
            if not self._connection.received:
                self._connection.received += self._connection.receive()
        taken = bytes(self._connection.received[:max_bytes])
        del self._connection.received[:max_bytes]
        return taken

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Speak TLS from now on; within another TLS (a proxy that speaks it itself) as httpx does, unwatched."""
        within = isinstance(self._sock, ssl.SSLSocket)
        encrypted = self._plain.start_tls(ssl_context, server_hostname, timeout)
        return encrypted if within else _Stream(encrypted, self._current)

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)

    def close(self) -> None:
        if self._connection.transfer is self._current.transfer:
            self._connection.abort()  # what was acknowledged whole is closed in order by it, too
        self._plain.close()


@contextmanager
def _errors_of_httpcore() -> Iterator[None]:
    """Raise errors of httpx, which it knows only from outside, as those of the same name below it."""
    try:
        yield
    except httpx.TransportError as error:
        raise getattr(httpcore, type(error).__name__)(str(error)) from error
