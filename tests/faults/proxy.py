"""A TCP proxy that is as bad a network as it is told to be, and mends when it is told to.

It runs in a thread of its own. Its conditions hold for the connections that are there and for those that come, and may
change at any time. What it cannot be is a network that loses packets: its own kernel acknowledges what it receives, so
that no time-out of TCP itself is seen here.
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
from typing import TYPE_CHECKING, Any, Self, TypeVar

from worker.local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

T = TypeVar("T")

PIECE_BYTES = 64 * 1024
ANSWER_S = 120.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time at all: close() sends RST


class Way(StrEnum):
    """A direction, as the client sees it."""

    REQUESTS = "requests"
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a proxy does to what passes; without arguments nothing.

    Attributes:
        latency_s: how long each piece of up to 64 KiB is on its way, one after the other.
        rate_bytes_per_s: how fast each connection is, each way; None: as fast as it goes.
        cut: the connection is closed after so many more bytes of a direction, exactly.
        held: directions in which nothing is passed on; what comes is kept, and passed on later if there is a later.
        deaf_after: a connection that has sent a request with these bytes in it hears nothing any more.
        refuse: whether new connections are refused.
    """

    latency_s: float = 0.0
    rate_bytes_per_s: int | None = None
    cut: dict[Way, int] = dataclasses.field(default_factory=dict)
    held: frozenset[Way] = frozenset()
    deaf_after: bytes | None = None
    refuse: bool = False


FINE = Conditions()
BLACK_HOLE = Conditions(held=frozenset(Way))
"""New connections are taken, and nothing comes out at the other end."""


class Proxy:
    """A way to one server on loopback. Every method returns when its effect is there; safe from any thread."""

    def __init__(self, port: int) -> None:
        """Listen on `port` (the attribute) for what goes to the server on this port."""
        self.port = free_port()
        self.passed = dict.fromkeys(Way, 0)
        self._target = port
        self._conditions = FINE
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {port}", daemon=True)
        self._thread.start()
        self._do(self._listen(wanted=True))

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def become(self, conditions: Conditions) -> None:
        """Be like this from now on, also for the connections that are there; bytes to a cut are counted from here."""
        self._do(self._become(conditions))

    def freeze(self) -> None:
        """Let the connections that are there pass nothing on until `heal`: they are half-open. New ones are fine."""
        self._do(self._for_all(lambda each: each.freeze()))

    def cut(self) -> None:
        """Close all connections, in order."""
        self._do(self._for_all(lambda each: each.end()))

    def reset(self) -> None:
        """End all connections with RST; what was held is lost."""
        self._do(self._for_all(lambda each: each.end(reset=True)))

    def heal(self) -> None:
        """Be fine again, frozen connections included."""
        self._do(self._for_all(lambda each: each.thaw()))
        self.become(FINE)

    def close(self) -> None:
        """End everything."""
        self.become(Conditions(refuse=True))
        self.reset()
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(ANSWER_S)

    async def _become(self, conditions: Conditions) -> None:
        self._conditions = conditions
        for connection in self._connections:
            connection.obey(conditions)
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
        await asyncio.gather(*(each.gone.wait() for each in connections if each.over.is_set()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection("127.0.0.1", self._target, limit=PIECE_BYTES)
        except OSError:
            _close(writer, reset=True)
            return
        lines = {Way.REQUESTS: (reader, server[1]), Way.ANSWERS: (server[0], writer)}
        connection = _Connection(lines, self.passed)
        connection.obey(self._conditions)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    """A client's connection and ours to the server, and what is between them."""

    def __init__(
        self, lines: dict[Way, tuple[asyncio.StreamReader, asyncio.StreamWriter]], passed: dict[Way, int]
    ) -> None:
        self._lines, self._passed = lines, passed
        self._conditions = FINE
        self._left: dict[Way, int] = {}
        self._open = {way: asyncio.Event() for way in Way}
        self._frozen = self._deaf = self._reset = False
        self._talking = set(Way)
        self.over, self.gone = asyncio.Event(), asyncio.Event()

    def obey(self, conditions: Conditions) -> None:
        """Be like this from now on."""
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
        self._frozen = self._deaf = False
        self._settle()

    def _settle(self) -> None:
        for way, gate in self._open.items():
            if self._frozen or way in self._conditions.held or (self._deaf and way is Way.ANSWERS):
                gate.clear()
            else:
                gate.set()

    def end(self, *, reset: bool = False) -> None:
        """Have both sides closed, soon."""
        self._reset = reset
        self.over.set()

    async def run(self) -> None:
        """Pass on, both ways, until both sides have said all or the connection is ended."""
        pumps = [asyncio.ensure_future(self._pump(way)) for way in Way]
        await self.over.wait()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for _, writer in self._lines.values():
            _close(writer, reset=self._reset)
        self.gone.set()

    async def _pump(self, way: Way) -> None:
        reader, writer = self._lines[way]
        try:
            while piece := await reader.read(self._most()):
                await self._open[way].wait()
                await self._travel(len(piece))
                await self._open[way].wait()
                self._listen_for(way, piece)
                await self._pass(way, writer, piece)
            await self._open[way].wait()  # its end is something said, too
            writer.write_eof()
            self._talking.remove(way)
            if not self._talking:
                self.end()
        except OSError:
            self.end(reset=True)  # as the other side did it

    def _listen_for(self, way: Way, piece: bytes) -> None:
        word = self._conditions.deaf_after
        if way is Way.REQUESTS and word is not None and word in piece:
            self._deaf = True
            self._settle()

    def _most(self) -> int:
        rate = self._conditions.rate_bytes_per_s
        return PIECE_BYTES if rate is None else max(1, min(PIECE_BYTES, rate // 20))

    async def _travel(self, size_bytes: int) -> None:
        rate = self._conditions.rate_bytes_per_s
        delay_s = self._conditions.latency_s + (size_bytes / rate if rate else 0.0)
        if delay_s:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), delay_s)

    async def _pass(self, way: Way, writer: asyncio.StreamWriter, piece: bytes) -> None:
        left = self._left.get(way)
        if left is not None:
            piece = piece[:left]
            self._left[way] = left - len(piece)
        writer.write(piece)
        self._passed[way] += len(piece)
        await writer.drain()
        if self._left.get(way) == 0:
            self.end()


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        with suppress(OSError):  # the other side may have been quicker
            made: socket.socket = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
