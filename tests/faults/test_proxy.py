"""The proxy has the faults of its conditions, and no others."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.faults.proxy import BLACK_HOLE, Conditions, Direction, Proxy
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(socketserver.BaseRequestHandler):
    """Sends everything back, and records it."""

    received = bytearray()

    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.received.extend(data)
                self.request.sendall(data)
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def received() -> bytearray:
    """The bytes that the server has received in this test."""
    Echo.received = bytearray()
    return Echo.received


@pytest.fixture
def proxy(received: bytearray) -> Iterator[Proxy]:
    assert received == b""
    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with closing(Proxy(server.server_address[1])) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def exchange(line: socket.socket, data: bytes) -> bytes:
    line.sendall(data)
    return receive(line, len(data))


def receive(line: socket.socket, size: int) -> bytes:
    """So many bytes; fewer if the stream ends."""
    data = b""
    while len(data) < size and (piece := line.recv(size - len(data))):
        data += piece
    return data


def silent(line: socket.socket) -> bool:
    """Whether the client receives nothing, not even the end of the stream."""
    line.settimeout(0.1)
    try:
        line.recv(1)
    except TimeoutError:
        line.settimeout(5)
        return True
    return False


def test_everything_passes_both_ways_and_so_does_the_end(proxy: Proxy) -> None:
    data = bytes(range(256)) * 4096
    with client(proxy) as line:
        sender = threading.Thread(target=line.sendall, args=(data,))
        sender.start()
        assert receive(line, len(data)) == data
        sender.join()
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
    assert proxy.passed == dict.fromkeys(Direction, len(data))
    assert wait_until(lambda: proxy.connections == 0, timeout_s=60)


def test_latency_holds_each_piece_back_on_a_live_connection(proxy: Proxy) -> None:
    with client(proxy) as line:
        exchange(line, b"quick")
        proxy.apply(Conditions(latency_s=0.1))
        began = time.monotonic()
        assert exchange(line, b"slow") == b"slow"
        assert time.monotonic() - began >= 0.2  # both directions
        proxy.heal()
        assert exchange(line, b"quick") == b"quick"


def test_bandwidth_is_limited(proxy: Proxy) -> None:
    with client(proxy) as line:
        proxy.apply(Conditions(rate_bytes_per_s=100_000))
        began = time.monotonic()
        assert len(exchange(line, bytes(30_000))) == 30_000
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("way", "there", "back"),
    [(Direction.REQUESTS, b"0123456", {b"", b"0123456"}), (Direction.ANSWERS, b"0123456789", {b"0123456"})],
)
def test_cut_after_exactly_so_many_bytes(
    proxy: Proxy, received: bytearray, way: Direction, there: bytes, back: set[bytes]
) -> None:
    with client(proxy) as line:
        exchange(line, b"before")
        proxy.apply(Conditions(cut={way: 7}))
        line.sendall(b"0123456789")
        assert receive(line, 10) in back
        assert line.recv(1) == b""
    assert wait_until(lambda: received == b"before" + there, timeout_s=60)
    with client(proxy) as line:  # a new connection has its own count
        assert exchange(line, b"01234") == b"01234"


def test_half_open_connections_are_silent_and_new_ones_work(proxy: Proxy, received: bytearray) -> None:
    with client(proxy) as old, client(proxy) as new:
        exchange(old, b"a")
        exchange(new, b"b")
        new.close()
        proxy.freeze()
        old.sendall(b"c")
        assert silent(old)
        with client(proxy) as third:
            assert exchange(third, b"d") == b"d"
        assert received == b"abd"
        proxy.heal()
        assert receive(old, 1) == b"c"


def test_a_black_hole_accepts_connections_and_is_silent(proxy: Proxy, received: bytearray) -> None:
    with client(proxy) as old:
        exchange(old, b"a")
        proxy.apply(BLACK_HOLE)
        with client(proxy) as new:
            old.sendall(b"b")
            new.sendall(b"c")
            assert silent(old)
            assert silent(new)
            assert received == b"a"
            proxy.heal()
            assert (receive(old, 1), receive(new, 1)) == (b"b", b"c")


def test_the_answer_to_a_chosen_request_is_lost_and_others_arrive(proxy: Proxy, received: bytearray) -> None:
    with client(proxy) as line, client(proxy) as other:
        exchange(line, b"a")
        proxy.apply(Conditions(answers_lost_after=b"commit"))
        exchange(line, b"b")
        line.sendall(b"commit")
        assert silent(line)
        assert exchange(other, b"c") == b"c"
        assert received == b"abcommitc"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            line.recv(1)
    assert proxy.connections == 0


def test_cut_ends_in_order_and_reset_does_not(proxy: Proxy) -> None:
    with client(proxy) as line:
        exchange(line, b"a")
        proxy.cut()
        assert line.recv(1) == b""
    with client(proxy) as line:
        exchange(line, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            line.recv(1)


def test_refused_until_healed(proxy: Proxy) -> None:
    with client(proxy) as line:
        exchange(line, b"a")
        proxy.apply(Conditions(refuse=True))
        with pytest.raises(ConnectionRefusedError):
            client(proxy)
        assert exchange(line, b"b") == b"b"  # existing connections stay
    proxy.heal()
    with client(proxy) as line:
        assert exchange(line, b"c") == b"c"


def test_without_a_server_behind_it_connections_are_reset() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with (
            closing(Proxy(bound.getsockname()[1])) as proxy,
            pytest.raises(ConnectionResetError),
            client(proxy) as line,
        ):
            line.recv(1)
