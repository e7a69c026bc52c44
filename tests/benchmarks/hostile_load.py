"""The load of a client without a key; each function loads a port until it is stopped, and counts."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.sharedctypes import Synchronized

KIB = 1024
MIB = 1024 * KIB
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n"
POST = b"POST /v1/jobs/batch HTTP/1.1\r\nHost: api\r\n"
CONNECTIONS = 600  # of each attacker: together more than the API's open files
PROBE_TIMEOUT_S = 5.0
_AT_ONCE = 30
_TIMEOUT_S = 10.0
_pause = threading.Event()


@dataclass(frozen=True, slots=True)
class Ends:
    """When a load ends, by the machine's monotonic clock, which all processes share."""

    at: Synchronized[float]

    @property
    def reached(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self.at.value


def health_s(port: int) -> float:
    """Ask for `/healthz` on a new connection; the seconds until it is answered."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S) as wire:
        wire.settimeout(PROBE_TIMEOUT_S)
        wire.sendall(HEALTH)
        answer = wire.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise OSError(f"answered {answer[:40]!r}")
    return time.perf_counter() - began


def connect(port: int) -> socket.socket:
    wire = socket.socket()
    wire.settimeout(_TIMEOUT_S)
    wire.connect(("127.0.0.1", port))
    return wire


def held(begin: bytes, more: bytes, every_s: float) -> Callable[[int, Ends, Synchronized[int]], None]:
    """Keep many connections, say something on each now and then, and open those anew that the API has ended."""

    def load(port: int, ends: Ends, count: Synchronized[int]) -> None:
        wires: list[socket.socket] = []
        while not ends.reached:
            began = time.monotonic()
            kept = []
            for wire in wires:
                wire.setblocking(False)
                try:
                    if more:
                        wire.send(more)
                    alive = wire.recv(4096) != b""
                except BlockingIOError:
                    alive = True
                except OSError:
                    alive = False
                kept.append(wire) if alive else wire.close()
            wires = kept
            with suppress(OSError):
                while len(wires) < CONNECTIONS and not ends.reached:
                    wire = connect(port)
                    wires.append(wire)
                    wire.sendall(begin)
                    count.value += 1
            _pause.wait(max(0.0, every_s - (time.monotonic() - began)))

    return load


def sent(request: Callable[[], bytes]) -> Callable[[int, Ends, Synchronized[int]], None]:
    """Send a request on several connections at once and as fast as possible, take what comes, and begin again."""

    def load(port: int, ends: Ends, count: Synchronized[int]) -> None:
        data = request()
        with selectors.DefaultSelector() as selector:
            while not ends.reached:
                while len(selector.get_map()) < _AT_ONCE:
                    try:
                        wire = connect(port)
                    except OSError:
                        break
                    wire.setblocking(False)
                    selector.register(wire, selectors.EVENT_READ | selectors.EVENT_WRITE, [0])
                for key, events in selector.select(0.1):
                    if not _go_on(key, events, data):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]
                        count.value += 1

    return load


def _go_on(key: selectors.SelectorKey, events: int, data: bytes) -> bool:
    """Send the next piece, take what has come; say whether the connection goes on."""
    wire: socket.socket = key.fileobj  # type: ignore[assignment]
    try:
        if events & selectors.EVENT_READ and not wire.recv(256 * KIB):
            return False
        if events & selectors.EVENT_WRITE and key.data[0] < len(data):
            key.data[0] += wire.send(memoryview(data)[key.data[0] : key.data[0] + 256 * KIB])
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def churn(port: int, ends: Ends, count: Synchronized[int]) -> None:
    """Connect and close."""
    while not ends.reached:
        with suppress(OSError):
            connect(port).close()
        count.value += 1


def pipelined(port: int, ends: Ends, count: Synchronized[int]) -> None:
    """Send as many requests as the connection takes, on many connections, and read no answer."""
    data, wires = HEALTH * 2000, []
    while not ends.reached:
        with suppress(OSError):
            while len(wires) < CONNECTIONS // 4:
                wires.append(connect(port))
                wires[-1].setblocking(False)
        kept = []
        for wire in wires:
            try:
                count.value += wire.send(data) // len(HEALTH)
            except BlockingIOError:
                pass
            except OSError:
                wire.close()
                continue
            kept.append(wire)
        wires = kept
        _pause.wait(0.001)


KINDS: dict[str, Callable[[int, Ends, Synchronized[int]], None]] = {
    "idle connections": held(b"", b"", 0.2),
    "slow heads": held(b"GET /healthz HTTP/1.1\r\n", b"X: x\r\n", 1.0),
    "slow bodies": held(POST + b"Content-Length: 1000000\r\n\r\n", b"x", 1.0),
    "giant heads": sent(lambda: b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 64 * MIB + b"\r\n\r\n"),
    "giant URLs": sent(lambda: b"GET /" + b"x" * 64 * MIB + b" HTTP/1.1\r\n\r\n"),
    "bodies": sent(lambda: POST + b"Content-Length: %d\r\n\r\n" % (8 * MIB) + b" " * 8 * MIB),
    "bodies, unknown keys": sent(
        lambda: (
            POST + b"Authorization: Bearer slw_%b\r\nContent-Length: %d\r\n\r\n" % (b"x" * 43, 8 * MIB) + b" " * 8 * MIB
        )
    ),
    "connections that come and go": churn,
    "garbage": sent(lambda: os.urandom(256)),
    "pipelined requests, no answer read": pipelined,
}


def load(kind: str, port: int, ends: Ends, count: Synchronized[int]) -> None:
    """Load the port in one of the kinds; a count says that it has begun."""
    count.value = 1
    KINDS[kind](port, ends, count)
