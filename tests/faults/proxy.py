"""A TCP proxy with the faults of a bad network.

It runs in a thread of its own. Its conditions apply to existing and new connections, and may change at any time. It
cannot simulate packet loss: its own kernel acknowledges every packet, so that TCP's own timeouts never occur.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from worker.local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

PIECE_BYTES = 64 * 1024
TIMEOUT_S = 120.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class Direction(StrEnum):
    """A direction, from the client's point of view."""

    REQUESTS = "requests"
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The faults of a proxy; by default none.

    Attributes:
        latency_s: delay of each piece of up to 64 KiB, one after the other.
        rate_bytes_per_s: bandwidth of each connection in each direction; None: no limit.
        cut: the proxy closes the connection after exactly so many more bytes of a direction.
        held: directions in which the proxy holds all bytes back; it passes them on when the direction is open again.
        answers_lost_after: a connection that has sent a request with these bytes in it gets no bytes any more.
        refuse: whether the proxy refuses new connections.
    """

    latency_s: float = 0.0
    rate_bytes_per_s: int | None = None
    cut: dict[Direction, int] = dataclasses.field(default_factory=dict)
    held: frozenset[Direction] = frozenset()
    answers_lost_after: bytes | None = None
    refuse: bool = False


HEALTHY = Conditions()
BLACK_HOLE = Conditions(held=frozenset(Direction))
"""The proxy accepts new connections and passes no bytes on."""


class Proxy:
    """A proxy for one server on loopback. Every method returns after its effect; safe from any thread."""

    def __init__(self, port: int) -> None:
        """Listen on `self.port` for connections to the server on ``port``."""
        self.port = free_port()
        self.passed = dict.fromkeys(Direction, 0)
        self._target = port
        self._conditions = HEALTHY
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {port}", daemon=True)
        self._thread.start()
        self._run(self._listen(wanted=True))

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def apply(self, conditions: Conditions) -> None:
        """Apply conditions to existing and new connections; the bytes before a cut are counted from here."""
        self._run(self._apply(conditions))

    def freeze(self) -> None:
        """Pass nothing on in the existing connections until `heal`: they are half-open. New ones work."""
        self._run(self._for_all(lambda each: each.freeze()))

    def cut(self) -> None:
        """Close all connections, in order."""
        self._run(self._for_all(lambda each: each.end()))

    def reset(self) -> None:
        """End all connections with RST; held bytes are lost."""
        self._run(self._for_all(lambda each: each.end(reset=True)))

    def heal(self) -> None:
        """End all faults, also for frozen connections."""
        self._run(self._for_all(lambda each: each.thaw()))
        self.apply(HEALTHY)

    def close(self) -> None:
        """Close all connections and stop the thread."""
        self.apply(Conditions(refuse=True))
        self.reset()
        self._run(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    async def _apply(self, conditions: Conditions) -> None:
        self._conditions = conditions
        for connection in self._connections:
            connection.apply(conditions)
        await self._listen(wanted=not conditions.refuse)

    async def _listen(self, *, wanted: bool) -> None:
        if wanted and self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=PIECE_BYTES)
        elif not wanted and self._server is not None:
            self._server.close()
            self._server = None

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _for_all(self, act: Callable[[_Connection], None]) -> None:
        connections = list(self._connections)
        for connection in connections:
            act(connection)
        await asyncio.gather(*(each.closed.wait() for each in connections if each.over.is_set()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection("127.0.0.1", self._target, limit=PIECE_BYTES)
        except OSError:
            _close(writer, reset=True)
            return
        streams = {Direction.REQUESTS: (reader, server[1]), Direction.ANSWERS: (server[0], writer)}
        connection = _Connection(streams, self.passed)
        connection.apply(self._conditions)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    """A client's connection to the proxy, and the proxy's connection to the server."""

    def __init__(
        self, streams: dict[Direction, tuple[asyncio.StreamReader, asyncio.StreamWriter]], passed: dict[Direction, int]
    ) -> None:
        self._streams, self._passed = streams, passed
        self._conditions = HEALTHY
        self._left: dict[Direction, int] = {}
        self._open = {direction: asyncio.Event() for direction in Direction}
        self._frozen = self._answers_lost = self._reset = False
        self._not_ended = set(Direction)
        self.over, self.closed = asyncio.Event(), asyncio.Event()

    def apply(self, conditions: Conditions) -> None:
        """Apply conditions from now on."""
        self._conditions = conditions
        self._left = dict(conditions.cut)
        self._settle()
        if 0 in self._left.values():
            self.end()

    def freeze(self) -> None:
        """Pass nothing on."""
        self._frozen = True
        self._settle()

    def thaw(self) -> None:
        """Pass on again."""
        self._frozen = self._answers_lost = False
        self._settle()

    def _settle(self) -> None:
        for direction, is_open in self._open.items():
            lost = self._answers_lost and direction is Direction.ANSWERS
            if self._frozen or direction in self._conditions.held or lost:
                is_open.clear()
            else:
                is_open.set()

    def end(self, *, reset: bool = False) -> None:
        """Close both sides soon."""
        self._reset = reset
        self.over.set()

    async def run(self) -> None:
        """Pass bytes on in both directions, until both sides have ended or `end` is called."""
        pumps = [asyncio.ensure_future(self._pump(direction)) for direction in Direction]
        await self.over.wait()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for _, writer in self._streams.values():
            _close(writer, reset=self._reset)
        self.closed.set()

    async def _pump(self, direction: Direction) -> None:
        reader, writer = self._streams[direction]
        try:
            while piece := await reader.read(self._max_piece_bytes()):
                await self._open[direction].wait()
                await self._delay(len(piece))
                await self._open[direction].wait()
                self._lose_answers_after(direction, piece)
                await self._pass(direction, writer, piece)
            await self._open[direction].wait()  # the end of a stream is held back, too
            writer.write_eof()
            self._not_ended.remove(direction)
            if not self._not_ended:
                self.end()
        except OSError:
            self.end(reset=True)  # one side was reset: reset the other

    def _lose_answers_after(self, direction: Direction, piece: bytes) -> None:
        pattern = self._conditions.answers_lost_after
        if direction is Direction.REQUESTS and pattern is not None and pattern in piece:
            self._answers_lost = True
            self._settle()

    def _max_piece_bytes(self) -> int:
        rate = self._conditions.rate_bytes_per_s
        return PIECE_BYTES if rate is None else max(1, min(PIECE_BYTES, rate // 20))

    async def _delay(self, size_bytes: int) -> None:
        rate = self._conditions.rate_bytes_per_s
        delay_s = self._conditions.latency_s + (size_bytes / rate if rate else 0.0)
        if delay_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), delay_s)

    async def _pass(self, direction: Direction, writer: asyncio.StreamWriter, piece: bytes) -> None:
        left = self._left.get(direction)
        if left is not None:
            piece = piece[:left]
            self._left[direction] = left - len(piece)
        writer.write(piece)
        self._passed[direction] += len(piece)
        await writer.drain()
        if self._left.get(direction) == 0:
            self.end()


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        with suppress(OSError):  # the other side may have closed it first
            connected: socket.socket = writer.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
