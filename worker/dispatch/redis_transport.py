"""Kombu's Redis transport without what a worker's consumer spends most of its time on, and does not need.

- One client object a channel instead of one an operation: safe to be shared and cheap to use, but dear to make.
- No acknowledgement of a message of which no copy was kept: a transaction a message, to remove what is not there.
- A broker that is full counts as one that is away: Celery would end a worker that starts meanwhile.
- No socket is given to the event loop that it watches already: two system calls for each, in each of its turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.transport import redis
from redis.exceptions import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Container

    from kombu.asynchronous import Hub


class QoS(redis.QoS):
    """Acknowledges what was kept."""

    def ack(self, delivery_tag: str) -> None:
        """Forget the message's copy, if there is one."""
        if delivery_tag in self._delivered:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget the message's copy, if there is one, or put it back into the queue."""
        if delivery_tag in self._delivered:
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """Keeps its client for as long as it keeps its pool of connections."""

    QoS = QoS
    _shared: Any = None
    _shared_pool: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        if self._shared is None or self._shared_pool is not self.pool:
            self._shared_pool = self.pool
            self._shared = super()._create_client()  # type: ignore[no-untyped-call]
        return self._shared


class Poller(redis.MultiChannelPoller):
    """Names the sockets that are to be watched and are not."""

    watched: Container[int] = frozenset()

    @property
    def fds(self) -> dict[int, Any]:
        """The channels by the descriptors of their sockets."""
        return {fd: channel for fd, channel in super().fds.items() if fd not in self.watched}


class Transport(redis.Transport):
    """The Redis transport with these parts."""

    Channel = Channel
    cycle: Any
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.cycle = Poller()  # type: ignore[no-untyped-call]

    def register_with_event_loop(self, connection: Any, loop: Hub) -> None:
        """Let the loop watch the sockets, from now on and after they are made anew."""
        self.cycle.watched = loop.readers
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
