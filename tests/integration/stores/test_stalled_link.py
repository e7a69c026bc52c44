"""A request waits for a slow link and gives up on a stalled one; with and without TLS and a proxy.

The peers respond as a COS JSON store does, on loopback. A relay makes a link slow.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from tests.support.certificate import Authority
from tests.support.peer import Server
from tests.support.relay import Link, Relay
from worker.config.profiles import StoreProfile
from worker.errors import Interrupted, Stop, Transient, Unknown
from worker.http.connection import SocketConnection, Transfer
from worker.http.deadline import Deadline
from worker.stores.base import Intent, SliceAck
from worker.stores.cos_json.driver import CosJsonStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB = 1024
MIB = 1024 * KIB
HANDLE = {"session": "s"}
NEVER_S = 60.0
"""Longer than any test takes."""
ROUTES = ("plain", "tls", "proxy", "tls through a proxy")


class Guard:
    """A guard with a switch; records the progress reports, and calls ``when_asked`` at each check."""

    def __init__(self, seconds: float = NEVER_S) -> None:
        self.stop: Stop | None = None
        self.reports: list[int] = []
        self.asked = 0
        self.when_asked: Callable[[], object] = lambda: None
        self._time = Deadline(seconds)

    def check(self) -> None:
        self.asked += 1
        self.when_asked()
        if self.stop is not None:
            raise Interrupted(self.stop)
        self._time.check()

    def remaining_s(self) -> float:
        return self._time.remaining_s()

    def acknowledged(self, size_bytes: int) -> None:
        self.reports.append(size_bytes)


@dataclass
class Peers:
    """Opens drivers, each with a peer of its own, by one route."""

    route: str
    identity: Path
    closing: ExitStack
    servers: list[Server] = field(default_factory=list)

    def open(self, behave: Any, link: Link | None = None, stall_s: float = 10.0, **profile: Any) -> CosJsonStore:
        server = Server(lambda server, connection: self._serve(server, connection, behave))
        self.closing.callback(server.close)
        self.servers.append(server)
        port = server.port
        if link is not None:
            port = self.closing.enter_context(closing(Relay(port, link))).port
        address = f"127.0.0.1:{port}"
        secrets = {"secret_id": SecretStr("id"), "secret_key": SecretStr("key")}
        fields: dict[str, Any] = {
            "name": "s",
            "protocol": "cos-json",
            "appid": "1",
            "bucket": "b",
            **secrets,
            **profile,
        }
        match self.route:
            case "plain":
                fields |= {"endpoint": f"http://{address}"}
            case "tls":
                fields |= {"endpoint": f"https://localhost:{port}", "ca_file": self.identity}
            case "proxy":
                fields |= {"endpoint": "http://store.test", "proxy": f"http://{address}"}
            case _:
                fields |= {"endpoint": "https://localhost", "proxy": f"http://{address}", "ca_file": self.identity}
        store = CosJsonStore(StoreProfile(**fields), stall_s=stall_s)
        self.closing.callback(store.close)  # before the server, which waits for the connection to end
        return store

    def _serve(self, server: Server, connection: socket.socket, behave: Any) -> None:
        if self.route.endswith("through a proxy"):
            while b"\r\n\r\n" not in connection.recv(4 * KIB):
                pass
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if self.route.startswith("tls"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.identity)
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            behave(server, connection)


@pytest.fixture(params=ROUTES)
def peers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peers]:
    identity = Authority(tmp_path).identity("localhost")
    with ExitStack() as stack:
        yield Peers(request.param, identity, stack)


def answer(connection: socket.socket, size_bytes: int) -> None:
    data = {"session": "s", "offset": 0, "datalen": size_bytes}
    body = json.dumps({"code": 0, "message": "SUCCESS", "data": data}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def take_all(size_bytes: int) -> Any:
    def behave(server: Server, connection: socket.socket) -> None:
        while server.take(connection):
            answer(connection, size_bytes)

    return behave


@dataclass
class Deaf:
    """A peer that reads the beginning of a request, and the rest when it is released; counts the bytes."""

    released: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    heard_bytes: int = 0

    def __call__(self, _: Server, connection: socket.socket) -> None:
        self.heard_bytes += len(connection.recv(4 * KIB))
        assert self.released.wait(30)
        with suppress(OSError):
            while more := connection.recv(MIB):
                self.heard_bytes += len(more)
        self.over.set()


@dataclass
class Late:
    """A peer that reads a whole request, and responds when it is released."""

    size_bytes: int
    taken: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __call__(self, server: Server, connection: socket.socket) -> None:
        while server.take(connection):
            self.taken.set()
            assert self.released.wait(30)
            with suppress(OSError):
                answer(connection, self.size_bytes)


def put(store: CosJsonStore, size_bytes: int, guard: Guard) -> object:
    return store.put_slice("k", HANDLE, 0, memoryview(bytes(size_bytes)), guard)


class TestSlowLink:
    def test_a_slice_takes_as_long_as_it_takes(self, peers: Peers) -> None:
        """The link takes 5 s for the slice; the profile's response timeout is 1 s."""
        link = Link(600_000, socket_buffer_bytes=32 * KIB)
        store = peers.open(take_all(3 * MIB), link, answer_timeout_s=1.0)
        assert isinstance(put(store, 3 * MIB, Guard()), SliceAck)

    def test_a_proxy_that_acknowledges_all_bytes_at_once_changes_nothing(self, peers: Peers) -> None:
        link = Link(300_000, socket_buffer_bytes=4 * MIB, buffers=True)
        store = peers.open(take_all(MIB), link, stall_s=1.0, answer_timeout_s=1.0)
        assert isinstance(put(store, MIB, Guard()), SliceAck)

    def test_the_guard_receives_the_progress(self, peers: Peers) -> None:
        store, guard = peers.open(take_all(MIB), Link(400_000, socket_buffer_bytes=32 * KIB)), Guard()
        put(store, MIB, guard)
        first, *between, last = guard.reports
        assert (first, last) == (0, MIB)
        assert between == sorted(between)
        assert len({count for count in between if 0 < count < MIB}) >= 3

    def test_on_a_fast_link_the_guard_receives_two_reports(self, peers: Peers) -> None:
        store, guard = peers.open(take_all(64 * KIB)), Guard()
        put(store, 64 * KIB, guard)
        assert (guard.reports[0], guard.reports[-1]) == (0, 64 * KIB)

    def test_a_response_may_be_late_until_the_deadline(self, peers: Peers) -> None:
        peer, guard = Late(64 * KIB), Guard()
        # the guard is checked before each piece, and about once a second during the wait for the response
        guard.when_asked = lambda: guard.asked < 6 or peer.released.set()
        store = peers.open(peer, stall_s=0.5, answer_timeout_s=0.3)
        assert isinstance(put(store, 64 * KIB, guard), SliceAck)


class TestStalledLink:
    def test_ends_the_request(self, peers: Peers) -> None:
        peer = Deaf()
        store = peers.open(peer, stall_s=0.5, answer_timeout_s=NEVER_S)
        with pytest.raises(Transient) as caught:
            put(store, 2 * MIB, Guard())
        assert (caught.value.code, caught.value.counts_as_attempt) == ("store_stalled", False)
        peer.released.set()

    def test_no_more_bytes_are_sent_after_the_request_was_given_up(self, peers: Peers) -> None:
        """Otherwise the kernel would send the bytes in its buffer, and slow down other requests."""
        peer = Deaf()
        store = peers.open(peer, stall_s=0.5, answer_timeout_s=NEVER_S)
        with pytest.raises(Transient):
            put(store, 2 * MIB, Guard())
        peer.released.set()
        assert peer.over.wait(20)
        assert peer.heard_bytes < 2 * MIB

    def test_the_outcome_of_an_upload_in_one_request_is_unknown(self, peers: Peers) -> None:
        peer = Deaf()
        store = peers.open(peer, stall_s=0.5, answer_timeout_s=NEVER_S)
        intent = Intent(key="k", size_bytes=2 * MIB, overwrite=False, attributes=None, mark="sliceway/1/1")
        with pytest.raises(Unknown) as caught:
            store.put_whole(intent, memoryview(bytes(2 * MIB)), Guard())
        assert caught.value.code == "store_stalled"
        peer.released.set()

    @pytest.mark.parametrize("stop", [Stop.CANCELLED, Stop.REVOKED, Stop.SHUTDOWN])
    def test_a_stop_does_not_wait_for_the_link(self, peers: Peers, stop: Stop) -> None:
        peer, guard = Deaf(), Guard()

        def stop_when_the_kernel_has_all_bytes() -> None:
            guard.stop = stop if any(guard.reports[-1:]) else None

        guard.when_asked = stop_when_the_kernel_has_all_bytes
        store = peers.open(peer, stall_s=NEVER_S, answer_timeout_s=NEVER_S)
        with pytest.raises(Interrupted) as caught:
            put(store, 2 * MIB, guard)
        assert caught.value.stop is stop
        peer.released.set()


class TestNoResponse:
    def test_the_wait_ends_at_the_deadline(self, peers: Peers) -> None:
        peer = Late(64 * KIB)
        store = peers.open(peer, stall_s=0.5, answer_timeout_s=0.1)
        with pytest.raises(Transient) as caught:
            put(store, 64 * KIB, Guard(seconds=2.0))
        assert (caught.value.code, caught.value.counts_as_attempt) == ("store_silent", False)
        assert peer.taken.is_set()
        peer.released.set()

    def test_the_wait_ends_some_time_after_a_stop(self, peers: Peers) -> None:
        peer, guard = Late(64 * KIB), Guard()

        def stop_when_the_peer_has_all_bytes() -> None:
            guard.stop = Stop.CANCELLED if peer.taken.is_set() else None

        guard.when_asked = stop_when_the_peer_has_all_bytes
        store = peers.open(peer, stall_s=NEVER_S, answer_timeout_s=NEVER_S)
        with pytest.raises(Interrupted) as caught:
            put(store, 64 * KIB, guard)
        assert caught.value.stop is Stop.CANCELLED
        peer.released.set()

    def test_without_content_the_wait_is_the_timeout_of_the_profile(self, peers: Peers) -> None:
        peer = Late(0)
        store = peers.open(peer, answer_timeout_s=0.3)
        with pytest.raises(Transient) as caught:
            store.list_slices("k", HANDLE, Guard())
        assert caught.value.code == "store_silent"
        peer.released.set()


def test_a_nearly_full_buffer_is_no_stall() -> None:
    """Linux reports the socket writable when a third of its buffer is free: after 2 s here, while the link moves."""

    def drain(_: Server, connection: socket.socket) -> None:
        while connection.recv(MIB):
            pass

    with ExitStack() as stack:
        server = Server(drain)
        stack.callback(server.close)
        link = Link(64 * KIB, socket_buffer_bytes=32 * KIB)
        relay = stack.enter_context(closing(Relay(server.port, link)))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 192 * KIB)
        sock.connect(("127.0.0.1", relay.port))
        connection = stack.enter_context(closing(SocketConnection(sock)))
        connection.begin(Transfer(Deadline(NEVER_S)), 1.5)
        connection.send(bytes(512 * KIB))
        assert connection.taken_bytes == 512 * KIB
