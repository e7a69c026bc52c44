"""The connections of one HTTP server: how many there may be, which one yields to a new one, which one is overdue."""

from __future__ import annotations

import functools
import ipaddress
import math
import resource
from collections import deque
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from api.limits import RefusalLog
from worker.telemetry.log import get_log

if TYPE_CHECKING:
    import asyncio

    from worker.config.settings import Settings

ACCEPT_BURST = 64
"""Connections accepted in one turn of the event loop."""
LINGERING_MAX = 64
"""Connections that only wait for their client to hear a refusal; beyond it the oldest is cut."""
STALLED_MAX = 100
"""Connections whose client takes nothing of an answer that waits for it; beyond it the oldest is cut. Each may hold an
answer in memory."""
PIPELINED_BURST = 8
"""Requests taken in one turn of the event loop from connections that had sent them before the last answer. All of them
at once, a turn would last as long as there are such connections, and a new one waits for several."""
_OTHER_DESCRIPTORS = 64
_FLOOR = 16
_TICK_MAX_S = 1.0
_IPV6 = 6
_log = get_log(__name__)


class Connection(Protocol):
    """What the table sees of a connection."""

    transport: asyncio.Transport
    deadline: float

    def overdue(self) -> None:
        """Do what belongs to a deadline that has passed."""

    def go_on(self) -> None:
        """Take the next of its pipelined requests."""


def connection_limit(settings: Settings, open_files: int | None = None) -> int:
    """Return how many connections one process keeps: the setting, or what its open files leave.

    Connections to the database, accepted ones that are not counted yet, and lingering ones need descriptors, too.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if open_files is None else open_files
    if soft == resource.RLIM_INFINITY:
        return settings.api_connections
    database = 2 * (settings.api_threads + 1)
    reserve = database + 2 * ACCEPT_BURST + LINGERING_MAX + _OTHER_DESCRIPTORS
    limit = min(settings.api_connections, max(_FLOOR, soft - reserve))
    if limit < settings.api_connections:
        _log.warning("api.connections_limited", limit=limit, wanted=settings.api_connections, open_files=soft)
    return limit


@functools.lru_cache(maxsize=4096)
def address_of(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class Connections:
    """All connections of one server, in one event loop.

    A connection is idle while it has no request under way. When the table is full, a new connection takes the place of
    the longest idle one, of the address that has most of them: who holds many idle connections shuts out itself.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        """Watch nothing yet."""
        self.settings = settings
        self.log = RefusalLog()
        self._limit = connection_limit(settings)
        self._loop = loop
        self._members: dict[Connection, str] = {}
        self._of_address: dict[str, int] = {}
        self._idle: dict[str, dict[Connection, None]] = {}
        self._lingering: dict[Connection, None] = {}
        self._stalled: dict[Connection, None] = {}
        self._pipelined: deque[Connection] = deque()
        self._ticking: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._members)

    def enter(self, connection: Connection, host: str) -> bool:
        """Take a new connection in, as an idle one; say whether there was room for it."""
        address = address_of(host)
        most = self.settings.api_connections_per_address
        room = most is None or self._of_address.get(address, 0) < most or self.evict(address)
        room = room and (len(self._members) - len(self._lingering) < self._limit or self.evict())
        self._members[connection] = address
        self._of_address[address] = self._of_address.get(address, 0) + 1
        self.idle(connection)
        if self._ticking is None:
            self._tick()
        return room

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        address = self._members.pop(connection)
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        self._take_from_idle(connection, address)
        self._lingering.pop(connection, None)
        self._stalled.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Note that it has no request under way."""
        self._idle.setdefault(self._members[connection], {})[connection] = None

    def busy(self, connection: Connection) -> None:
        """Note that it has a request under way."""
        self._take_from_idle(connection, self._members[connection])

    def lingering(self, connection: Connection) -> None:
        """Note that it only waits for its client to hear the answer."""
        self.busy(connection)
        self._queue(self._lingering, connection, LINGERING_MAX)

    def stalled(self, connection: Connection) -> None:
        """Note that its client takes nothing of its answer."""
        self._queue(self._stalled, connection, STALLED_MAX)

    def flowing(self, connection: Connection) -> None:
        """Note that its client takes its answer again."""
        self._stalled.pop(connection, None)

    def pipelined(self, connection: Connection) -> None:
        """Let it take its next request when it is its turn among those that have one."""
        if not self._pipelined:
            self._loop.call_soon(self._go_on)
        self._pipelined.append(connection)

    def _go_on(self) -> None:
        turn = [self._pipelined.popleft() for _ in range(min(PIPELINED_BURST, len(self._pipelined)))]
        if self._pipelined:
            self._loop.call_soon(self._go_on)
        for connection in turn:
            connection.go_on()

    def evict(self, address: str | None = None) -> bool:
        """Cut the longest idle connection, of this address if one is named; say whether there was one."""
        if address is None:
            address = max(self._idle, key=lambda each: len(self._idle[each]), default=None)
        if address is None or address not in self._idle:
            return False
        connection = next(iter(self._idle[address]))
        self.busy(connection)
        self._cut(connection, "evicted")
        return True

    def _queue(self, queue: dict[Connection, None], connection: Connection, most: int) -> None:
        queue[connection] = None
        if len(queue) > most:
            oldest = next(iter(queue))
            del queue[oldest]
            self._cut(oldest, "cut")

    def _cut(self, connection: Connection, reason: str) -> None:
        self.log.note(reason)
        connection.transport.abort()

    def _take_from_idle(self, connection: Connection, address: str) -> None:
        idle = self._idle.get(address)
        if idle is not None and connection in idle:
            del idle[connection]
            if not idle:
                del self._idle[address]

    def _tick(self) -> None:
        """Look for overdue connections, several times in the shortest time limit; stop when there is none left."""
        self.log.flush()
        now = self._loop.time()
        for connection in list(self._members):
            if connection.deadline == math.inf:
                if connection.transport.is_closing():  # until its last bytes are taken, or its time is over
                    connection.deadline = now + self.settings.api_linger_s
            elif connection.deadline <= now:
                connection.overdue()
        limits = self.settings
        shortest = min(limits.api_head_timeout_s, limits.api_body_timeout_s, limits.api_linger_s)
        self._ticking = self._loop.call_later(min(_TICK_MAX_S, shortest / 4), self._tick) if self._members else None


_tables: WeakKeyDictionary[object, Connections] = WeakKeyDictionary()


def connections_of(server: object, settings: Settings, loop: asyncio.AbstractEventLoop) -> Connections:
    """Return the table of a server, one for each `ServerState` of uvicorn."""
    table = _tables.get(server)
    if table is None:
        table = _tables[server] = Connections(settings, loop)
    return table
