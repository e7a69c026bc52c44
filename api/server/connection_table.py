"""The connections of one HTTP server: how many it keeps, which one it closes for a new one, and their deadlines."""

from __future__ import annotations

import functools
import ipaddress
import math
import resource
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from api.server.refusals import RefusalLog
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    import asyncio

    from worker.config.settings import Settings

ACCEPT_BURST = 64
"""Connections accepted in one turn of the event loop."""
MAX_LINGERING = 64
"""Connections that stay open only until the client has read a refusal; beyond it the oldest is aborted."""
MAX_STALLED = 100
"""Connections whose client does not read its response; beyond it the oldest is aborted. Each may hold a response in
memory."""
PIPELINED_BURST = 8
"""Pipelined requests started in one turn of the event loop. If all were started at once, the turn would grow with the
number of such connections, and a new connection would wait for several turns."""
_OTHER_DESCRIPTORS = 64
_MIN_CONNECTIONS = 16
_MAX_TICK_S = 1.0
_log = get_logger(__name__)


class TrackedConnection(Protocol):
    """What the table needs of a connection."""

    transport: asyncio.Transport
    deadline: float

    def on_deadline(self) -> None:
        """Handle a deadline that has passed."""

    def parse_pipelined(self) -> None:
        """Parse the next pipelined request."""


def connection_limit(settings: Settings, open_files: int | None = None) -> int:
    """Return how many connections one process keeps: the setting, or what the limit of open files leaves.

    Database connections, accepted connections that are not counted yet, and lingering ones need descriptors, too.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if open_files is None else open_files
    if soft == resource.RLIM_INFINITY:
        return settings.api_connections
    database = 2 * (settings.api_threads + 1)
    reserve = database + 2 * ACCEPT_BURST + MAX_LINGERING + _OTHER_DESCRIPTORS
    limit = min(settings.api_connections, max(_MIN_CONNECTIONS, soft - reserve))
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


class ConnectionTable:
    """All connections of one server, in one event loop.

    A connection is idle while it has no request under way. When the table is full, a new connection replaces the
    longest idle one of the address with the most idle ones: a client that keeps many idle connections loses its own.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.log = RefusalLog()
        self._limit = connection_limit(settings)
        self._loop = loop
        self._members: dict[TrackedConnection, str] = {}
        self._of_address: Counter[str] = Counter()
        self._idle: dict[str, dict[TrackedConnection, None]] = {}
        self._lingering: dict[TrackedConnection, None] = {}
        self._stalled: dict[TrackedConnection, None] = {}
        self._pipelined: deque[TrackedConnection] = deque()
        self._ticking: asyncio.TimerHandle | None = None

    def add(self, connection: TrackedConnection, host: str) -> bool:
        """Add a new connection as an idle one, and return whether the limits allow it."""
        address = address_of(host)
        limit = self.settings.api_connections_per_address
        fits = limit is None or self._of_address[address] < limit or self.evict(address)
        fits = fits and (len(self._members) - len(self._lingering) < self._limit or self.evict())
        self._members[connection] = address
        self._of_address[address] += 1
        self.mark_idle(connection)
        if self._ticking is None:
            self._tick()
        return fits

    def remove(self, connection: TrackedConnection) -> None:
        """Remove a closed connection."""
        self.mark_busy(connection)
        address = self._members.pop(connection)
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        self._lingering.pop(connection, None)
        self._stalled.pop(connection, None)

    def mark_idle(self, connection: TrackedConnection) -> None:
        """Record that it has no request under way."""
        self._idle.setdefault(self._members[connection], {})[connection] = None

    def mark_busy(self, connection: TrackedConnection) -> None:
        """Record that it has a request under way."""
        address = self._members[connection]
        idle = self._idle.get(address)
        if idle is not None and connection in idle:
            del idle[connection]
            if not idle:
                del self._idle[address]

    def mark_lingering(self, connection: TrackedConnection) -> None:
        """Record that it stays open only until its client has read the response."""
        self.mark_busy(connection)
        self._queue(self._lingering, connection, MAX_LINGERING)

    def mark_stalled(self, connection: TrackedConnection) -> None:
        """Record that its client does not read the response."""
        self._queue(self._stalled, connection, MAX_STALLED)

    def mark_flowing(self, connection: TrackedConnection) -> None:
        """Record that its client reads the response again."""
        self._stalled.pop(connection, None)

    def queue_pipelined(self, connection: TrackedConnection) -> None:
        """Queue its next pipelined request behind those of other connections."""
        if not self._pipelined:
            self._loop.call_soon(self._start_pipelined)
        self._pipelined.append(connection)

    def _start_pipelined(self) -> None:
        burst = [self._pipelined.popleft() for _ in range(min(PIPELINED_BURST, len(self._pipelined)))]
        if self._pipelined:
            self._loop.call_soon(self._start_pipelined)
        for connection in burst:
            connection.parse_pipelined()

    def evict(self, address: str | None = None) -> bool:
        """Abort the longest idle connection, of this address if one is given; return whether there was one."""
        if address is None:
            address = max(self._idle, key=lambda each: len(self._idle[each]), default=None)
        if address is None or address not in self._idle:
            return False
        connection = next(iter(self._idle[address]))
        self.mark_busy(connection)
        self._abort(connection, "evicted")
        return True

    def _queue(self, queue: dict[TrackedConnection, None], connection: TrackedConnection, limit: int) -> None:
        queue[connection] = None
        if len(queue) > limit:
            oldest = next(iter(queue))
            del queue[oldest]
            self._abort(oldest, "cut")

    def _abort(self, connection: TrackedConnection, reason: str) -> None:
        self.log.count(reason)
        connection.transport.abort()

    def _tick(self) -> None:
        """Check the deadlines, several times in the shortest time limit; stop when the table is empty."""
        self.log.flush()
        now = self._loop.time()
        for connection in list(self._members):
            if connection.deadline == math.inf:
                if connection.transport.is_closing():  # its last bytes may still be sent, but not without a deadline
                    connection.deadline = now + self.settings.api_linger_s
            elif connection.deadline <= now:
                connection.on_deadline()
        limits = self.settings
        shortest = min(limits.api_head_timeout_s, limits.api_body_timeout_s, limits.api_linger_s)
        self._ticking = self._loop.call_later(min(_MAX_TICK_S, shortest / 4), self._tick) if self._members else None


_tables: WeakKeyDictionary[object, ConnectionTable] = WeakKeyDictionary()


def connection_table_of(server: object, settings: Settings, loop: asyncio.AbstractEventLoop) -> ConnectionTable:
    """Return the table of a server: there is one for each `ServerState` of uvicorn."""
    table = _tables.get(server)
    if table is None:
        table = _tables[server] = ConnectionTable(settings, loop)
    return table
