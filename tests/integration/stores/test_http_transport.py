"""`HttpTransport` over real sockets, against servers with one behaviour each."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.peer import Server
from worker.http.connection import FAST_SEND_S, MAX_BATCH_BYTES, SocketConnection, Transfer
from worker.http.deadline import Deadline
from worker.http.transport import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TIMEOUTS = {"connect": 5.0, "write": 5.0, "read": 5.0}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer_all(server: Server, connection: socket.socket) -> None:
    while server.take(connection):
        connection.sendall(OK)


def answer_once(server: Server, connection: socket.socket) -> None:
    if server.take(connection):
        connection.sendall(OK)


@pytest.fixture
def open_server() -> Iterator[Callable[..., Server]]:
    opened: list[Server] = []

    def open_one(serve: Callable[[Server, socket.socket], object]) -> Server:
        opened.append(Server(serve))
        return opened[-1]

    yield open_one
    for server in opened:
        server.close()


@pytest.fixture
def open_transport() -> Iterator[Callable[..., HttpTransport]]:
    opened: list[HttpTransport] = []

    def open_one(url: str, *, idle_timeout_s: float = 4.0, max_idle: int = 4) -> HttpTransport:
        opened.append(HttpTransport(url, NO_AUTHORITIES, idle_timeout_s=idle_timeout_s, max_idle=max_idle))
        return opened[-1]

    yield open_one
    for transport in opened:
        transport.close()


class Pieces(httpx.SyncByteStream):
    def __init__(self, *pieces: bytes | memoryview) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces  # type: ignore[misc]


def post(transport: HttpTransport, url: str, *pieces: bytes | memoryview, **timeouts: float) -> str:
    headers = {"Content-Length": str(sum(map(len, pieces)))}
    extensions = {"timeout": TIMEOUTS | timeouts}
    request = httpx.Request("POST", url, headers=headers, stream=Pieces(*pieces), extensions=extensions)
    with closing(transport.handle_request(request)) as response:
        return response.read().decode()


def test_small_pieces_large_ones_and_views_arrive_as_they_are(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    server = open_server(answer_all)
    large = bytes(range(256)) * 16384
    pieces = (b"", b"head", memoryview(large)[:1_000_000], b"between", memoryview(large)[1_000_000:], b"tail")
    assert post(open_transport(server.url), server.url, *pieces) == "ok"
    assert server.heard == [b"head" + large[:1_000_000] + b"between" + large[1_000_000:] + b"tail"]


def test_on_a_slow_link_batches_are_small() -> None:
    ours, theirs = socket.socketpair()
    connection = SocketConnection(ours)
    connection.begin(Transfer(Deadline(60.0)), 5.0)
    connection.batch_bytes = MAX_BATCH_BYTES
    late = threading.Timer(2 * FAST_SEND_S, lambda: theirs.recv(4 << 20, socket.MSG_WAITALL))
    late.start()
    with closing(theirs), closing(connection):
        connection.send(bytes(4 << 20))
        late.join(120)
    assert connection.batch_bytes < 256 * 1024


def test_a_connection_is_reused(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    server = open_server(answer_all)
    transport = open_transport(server.url)
    assert [post(transport, server.url, b"x") for _ in range(3)] == ["ok"] * 3
    assert server.connections == 1


def test_a_connection_that_was_idle_for_too_long_is_not_reused(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    server = open_server(answer_all)
    transport = open_transport(server.url, idle_timeout_s=-1.0)
    assert [post(transport, server.url, b"x") for _ in range(2)] == ["ok"] * 2
    assert server.connections == 2


def test_a_connection_that_the_store_has_closed_is_not_reused(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    server = open_server(answer_once)
    transport = open_transport(server.url)
    for _ in range(3):
        assert post(transport, server.url, b"x") == "ok"
        assert server.gone.wait(20)
        server.gone.clear()
    assert server.connections == 3


def test_a_connection_whose_response_was_not_read_is_not_reused(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    server = open_server(answer_all)
    transport = open_transport(server.url)
    request = httpx.Request("POST", server.url, content=b"x", extensions={"timeout": TIMEOUTS})
    transport.handle_request(request).close()
    assert post(transport, server.url, b"x") == "ok"
    assert server.connections == 2


def test_a_response_before_the_body_was_taken_is_read(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    def refuse(_: Server, connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    server = open_server(refuse)
    assert post(open_transport(server.url), server.url, *[bytes(1 << 20)] * 32) == "big"


def test_a_refused_connection_differs_from_a_lost_response(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    with pytest.raises(httpx.ConnectError):
        post(open_transport("http://127.0.0.1:1"), "http://127.0.0.1:1", b"x")
    server = open_server(Server.take)
    with pytest.raises(httpx.RemoteProtocolError):
        post(open_transport(server.url), server.url, b"x")


def test_each_phase_has_its_own_timeout(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    release = threading.Event()
    deaf = open_server(lambda *_: release.wait(20))
    with pytest.raises(httpx.WriteTimeout):
        post(open_transport(deaf.url), deaf.url, bytes(64 << 20), write=0.2)
    release.set()
    mute = open_server(lambda server, connection: server.take(connection) and server.take(connection))
    with pytest.raises(httpx.ReadTimeout):
        post(open_transport(mute.url), mute.url, b"x", read=0.2)


def test_an_error_raised_by_the_body_ends_the_connection(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport]
) -> None:
    class Stopped(Exception):
        pass

    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield bytes(1 << 20)
            raise Stopped

    server = open_server(answer_all)
    transport = open_transport(server.url)
    headers = {"Content-Length": str(2 << 20)}
    request = httpx.Request("POST", server.url, headers=headers, stream=Broken(), extensions={"timeout": TIMEOUTS})
    with pytest.raises(Stopped):
        transport.handle_request(request)
    assert server.gone.wait(20)
    assert post(transport, server.url, b"x") == "ok"


@pytest.mark.parametrize("headers", [{"X": "a\r\nB: c"}, {"X": "a\0b"}, {"Transfer-Encoding": "chunked"}])
def test_an_ambiguous_request_head_is_not_sent(
    open_server: Callable[..., Server], open_transport: Callable[..., HttpTransport], headers: dict[str, str]
) -> None:
    server = open_server(answer_all)
    request = httpx.Request("GET", server.url, headers=headers, extensions={"timeout": TIMEOUTS})
    with pytest.raises(httpx.LocalProtocolError):
        open_transport(server.url).handle_request(request)
    assert server.connections == 0
