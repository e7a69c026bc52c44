"""Kombu's Redis transport without what a worker's consumer spends most of its time on, and does not need.

- One client object a channel instead of one an operation: safe to be shared and cheap to use, but dear to make.
- No acknowledgement of a message of which no copy was kept: a transaction a message, to remove what is not there.
- A broker that is full counts as one that is away: Celery would end a worker that starts meanwhile.
- No socket is given to the event loop that it watches already: two system calls for each, in each of its turns.
- Nothing is looked up for a channel that waits for an answer; kombu does it in each turn of the loop.
- Who consumes one queue asks for its messages in the same bytes each time, made once.
- What is no message is dropped with a line in the log; in kombu it ends the process, whoever has written it.

Written for kombu 5.7: the underscored methods of its Redis and virtual transports that are overridden here, the
poller's `_channels`, the channels' `_in_poll` and `_in_listen`, and the names in `TRANSPORT_ALIASES`.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache, redis
from kombu.transport.virtual import Empty
from redis.exceptions import OutOfMemoryError
from redis.sentinel import MasterNotFoundError

from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from kombu.asynchronous import Hub

SCHEMES = {"redis": "Transport", "rediss": "Transport", "sentinel": "SentinelTransport"}
"""Kombu's names; its `redis+socket` is its `redis` with a path in the place of the host."""
log = get_logger(__name__)
_PARTS = ("headers", "properties")
_WHY_CHARS = 200


def register() -> None:
    """Have kombu take this transport for Redis's schemes in this process.

    Named by its class instead, it would hide the scheme from kombu, which speaks TLS for `rediss` only, and from
    Flower, which knows brokers by their schemes.
    """
    for scheme, transport in SCHEMES.items():
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport}"
        _transport_cache.pop(scheme, None)


class QoS(redis.QoS):
    """Acknowledges what was kept."""

    def ack(self, delivery_tag: str) -> None:
        """Forget the message's copy, if there is one."""
        if delivery_tag in self._delivered:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget the message's copy, if there is one, or put it back into the queue."""
        if delivery_tag in self._delivered:
            super().reject(delivery_tag, requeue=requeue)


class Channel(redis.Channel):
    """Keeps its client for as long as it keeps its pool of connections, and what it asks for as long as its queues."""

    QoS = QoS
    _shared: Any = None
    _shared_pool: Any = None
    _question: Any = None
    _brpop_sent_at: Any

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._shared is None or self._shared_pool is not self.pool:
            self._shared_pool = self.pool
            self._shared = super()._create_client()
        return self._shared

    def _update_queue_cycle(self) -> None:
        super()._update_queue_cycle()
        self._question = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        if timeout is not None or self.global_keyprefix or len(self.active_queues) != 1:
            super()._brpop_start(timeout)
            return
        connection = self.client.connection
        if self._question is None:
            keys = [self._q_for_pri(queue, step) for queue in self.active_queues for step in self.priority_steps]
            self._question = connection.pack_command("BRPOP", *keys, self.brpop_timeout or 0)
        self._in_poll, self._brpop_sent_at = connection, monotonic()
        connection.send_packed_command(self._question)

    def _brpop_read(self, **options: Any) -> Any:
        """Deliver a message of the queue, whatever it is."""
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection.lost_errors):
            raise
        except Exception as error:  # noqa: BLE001 - the message's fault: it ended the process
            _refuse(error)
            return True

    def _receive_one(self, client: Any) -> Any:
        """Deliver a control command or an event, whatever it is."""
        try:
            return super()._receive_one(client)
        except (Empty, *self.connection.lost_errors):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            _refuse(error)
            return True


def _refuse(error: Exception) -> None:
    log.warning("message.refused", why=f"{type(error).__name__}: {error}"[:_WHY_CHARS])


class Poller(redis.MultiChannelPoller):
    """Names the sockets that are to be watched and are not."""

    watched: Container[int] = frozenset()

    def on_poll_start(self) -> None:
        """Ask on each channel that may be asked and is not yet; a connection that is lost takes its question along."""
        self._update_brpop_polling()
        for channel in self._channels:
            if not channel._in_poll and channel.active_queues and channel.qos.can_consume():  # noqa: SLF001
                self._register_BRPOP(channel)
            if not channel._in_listen and channel.active_fanout_queues:  # noqa: SLF001
                self._register_LISTEN(channel)

    @property
    def fds(self) -> dict[int, Any]:
        """The channels by the descriptors of their sockets."""
        return {fd: channel for fd, channel in super().fds.items() if fd not in self.watched}


class Transport(redis.Transport):
    """The Redis transport with these parts."""

    Channel = Channel
    cycle: Any
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError)
    lost_errors = tuple(
        kind for kind in (*connection_errors, *redis.Transport.channel_errors) if not issubclass(kind, KeyError)
    )
    """Those that are no message's fault."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = Poller()

    def _deliver(self, message: Any, queue: str) -> None:
        """Hand a message to whoever consumes the queue.

        Raises:
            ValueError: it is none, or is compressed: a few bytes could become any number of bytes.
        """
        headers, properties = map(message.get, _PARTS) if isinstance(message, dict) else (None, None)
        if not isinstance(headers, dict) or not isinstance(properties, dict) or "delivery_tag" not in properties:
            raise ValueError("it has not the parts of a message")
        if headers.get("compression"):
            raise ValueError("it is compressed: ours never are")
        super()._deliver(message, queue)

    def register_with_event_loop(self, connection: Any, loop: Hub) -> None:
        """Let the loop watch the sockets, from now on and after they are made anew."""
        self.cycle.watched = loop.readers
        super().register_with_event_loop(connection, loop)


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same where sentinels say which server is to be asked."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        pool = super()._sentinel_managed_pool(asynchronous)
        manager = pool.sentinel_manager
        manager.discover_master = partial(_master, manager.discover_master)
        return pool


def _master(discover: Callable[[str], Any], name: str) -> Any:
    """Return where the master is.

    Raises:
        MasterNotFoundError: no sentinel says so; in a line, where redis-py shows all the options of each connection.
    """
    try:
        return discover(name)
    except MasterNotFoundError:
        text = f"no sentinel answers, or none has a master {name}; `sliceway doctor` says which"
        raise MasterNotFoundError(text) from None


class SentinelTransport(Transport):
    """The same for what sentinels lead to."""

    Channel = SentinelChannel
    default_port = redis.SentinelTransport.default_port  # type: ignore[assignment]
