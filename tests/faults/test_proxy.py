"""The proxy is as bad a network as it is told to be, and no worse."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.proxy import BLACK_HOLE, Conditions, Proxy, Way
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(socketserver.BaseRequestHandler):
    """Says everything again, and remembers it."""

    heard = bytearray()

    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.heard.extend(data)
                self.request.sendall(data)
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def heard() -> bytearray:
    """What the server has heard in this test."""
    Echo.heard = bytearray()
    return Echo.heard


@pytest.fixture
def proxy(heard: bytearray) -> Iterator[Proxy]:
    assert heard == b""
    with Server(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with Proxy(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


def say(line: socket.socket, words: bytes) -> bytes:
    line.sendall(words)
    return hear(line, len(words))


def hear(line: socket.socket, size: int) -> bytes:
    """So many bytes, less where the line ends."""
    heard = b""
    while len(heard) < size and (piece := line.recv(size - len(heard))):
        heard += piece
    return heard


def silent(line: socket.socket) -> bool:
    """Whether nothing comes, not even an end."""
    line.settimeout(0.1)
    try:
        line.recv(1)
    except TimeoutError:
        line.settimeout(5)
        return True
    return False


def test_everything_passes_both_ways_and_so_does_the_end(proxy: Proxy) -> None:
    words = bytes(range(256)) * 4096
    with client(proxy) as line:
        sender = threading.Thread(target=line.sendall, args=(words,))
        sender.start()
        assert hear(line, len(words)) == words
        sender.join()
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
    assert proxy.passed == dict.fromkeys(Way, len(words))
    assert wait_until(lambda: proxy.connections == 0, timeout_s=60)


def test_latency_holds_each_piece_back_on_a_live_connection(proxy: Proxy) -> None:
    with client(proxy) as line:
        say(line, b"quick")
        proxy.become(Conditions(latency_s=0.1))
        began = time.monotonic()
        assert say(line, b"slow") == b"slow"
        assert time.monotonic() - began >= 0.2  # there and back
        proxy.heal()
        assert say(line, b"quick") == b"quick"


def test_bandwidth_is_what_it_says(proxy: Proxy) -> None:
    with client(proxy) as line:
        proxy.become(Conditions(rate_bytes_per_s=100_000))
        began = time.monotonic()
        assert len(say(line, bytes(30_000))) == 30_000
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize(
    ("way", "there", "back"),
    [(Way.REQUESTS, b"0123456", {b"", b"0123456"}), (Way.ANSWERS, b"0123456789", {b"0123456"})],
)
def test_cut_after_exactly_so_many_bytes(
    proxy: Proxy, heard: bytearray, way: Way, there: bytes, back: set[bytes]
) -> None:
    with client(proxy) as line:
        say(line, b"before")
        proxy.become(Conditions(cut={way: 7}))
        line.sendall(b"0123456789")
        assert hear(line, 10) in back
        assert line.recv(1) == b""
    assert wait_until(lambda: heard == b"before" + there, timeout_s=60)
    with client(proxy) as line:  # new connections have as many
        assert say(line, b"01234") == b"01234"


def test_half_open_connections_say_nothing_and_new_ones_are_fine(proxy: Proxy, heard: bytearray) -> None:
    with client(proxy) as old, client(proxy) as new:
        say(old, b"a")
        say(new, b"b")
        new.close()
        proxy.freeze()
        old.sendall(b"c")
        assert silent(old)
        with client(proxy) as third:
            assert say(third, b"d") == b"d"
        assert heard == b"abd"
        proxy.heal()
        assert hear(old, 1) == b"c"


def test_a_black_hole_takes_connections_and_gives_nothing_back(proxy: Proxy, heard: bytearray) -> None:
    with client(proxy) as old:
        say(old, b"a")
        proxy.become(BLACK_HOLE)
        with client(proxy) as new:
            old.sendall(b"b")
            new.sendall(b"c")
            assert silent(old)
            assert silent(new)
            assert heard == b"a"
            proxy.heal()
            assert (hear(old, 1), hear(new, 1)) == (b"b", b"c")


def test_the_answer_to_a_certain_request_is_lost_and_others_are_heard(proxy: Proxy, heard: bytearray) -> None:
    with client(proxy) as line, client(proxy) as other:
        say(line, b"a")
        proxy.become(Conditions(deaf_after=b"commit"))
        say(line, b"b")
        line.sendall(b"commit")
        assert silent(line)
        assert say(other, b"c") == b"c"
        assert heard == b"abcommitc"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            line.recv(1)
    assert proxy.connections == 0


def test_cut_ends_in_order_and_reset_does_not(proxy: Proxy) -> None:
    with client(proxy) as line:
        say(line, b"a")
        proxy.cut()
        assert line.recv(1) == b""
    with client(proxy) as line:
        say(line, b"a")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            line.recv(1)


def test_refused_until_healed(proxy: Proxy) -> None:
    with client(proxy) as line:
        say(line, b"a")
        proxy.become(Conditions(refuse=True))
        with pytest.raises(ConnectionRefusedError):
            client(proxy)
        assert say(line, b"b") == b"b"  # who is there may stay
    proxy.heal()
    with client(proxy) as line:
        assert say(line, b"c") == b"c"


def test_without_a_server_behind_it_connections_are_reset() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()[1]) as proxy, pytest.raises(ConnectionResetError), client(proxy) as line:
            line.recv(1)
