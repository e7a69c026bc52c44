"""Our Redis transport fetches messages without Celery's needless commands, and leaves out none that is needed."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from kombu import Connection, Exchange, Queue
from kombu.asynchronous import Hub
from kombu.exceptions import OperationalError

from worker.local.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSPORT = "worker.broker.redis_transport:Transport"
SENTINEL_TRANSPORT = "worker.broker.redis_transport:SentinelTransport"


@contextmanager
def consuming(broker_url: str, *, no_ack: bool) -> Iterator[tuple[Connection, list[Any]]]:
    """Yield the connection of a consumer and the messages that it has received."""
    with Connection(broker_url, transport=TRANSPORT) as connection:
        queue = Queue("tasks", routing_key="tasks", no_ack=no_ack)
        connection.SimpleQueue(queue).put({"job": 1})
        got: list[Any] = []
        with connection.Consumer([queue], on_message=got.append):
            connection.drain_events(timeout=120)
            yield connection, got


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        client.flushall()
        client.config_resetstat()
        yield client


def test_a_message_of_which_no_copy_is_kept_is_acknowledged_without_a_command(
    broker_url: str, broker: redis.Redis
) -> None:
    with consuming(broker_url, no_ack=True) as (_, [message]):
        message.ack()
    assert "cmdstat_zrem" not in broker.info("commandstats")


def test_a_copy_is_removed_by_the_acknowledgement(broker_url: str, broker: redis.Redis) -> None:
    with consuming(broker_url, no_ack=False) as (_, [message]):
        assert broker.hlen("unacked") == 1
        message.ack()
        assert broker.hlen("unacked") == 0


@pytest.mark.parametrize(("no_ack", "queued"), [(True, 0), (False, 1)])
def test_a_rejected_message_returns_to_the_queue_only_if_a_copy_is_kept(
    broker_url: str, broker: redis.Redis, queued: int, *, no_ack: bool
) -> None:
    with consuming(broker_url, no_ack=no_ack) as (_, [message]):
        message.reject(requeue=True)
    assert broker.llen("tasks") == queued


@pytest.mark.usefixtures("broker")
def test_the_event_loop_receives_messages_after_its_connection_was_cut(broker_url: str) -> None:
    hub = Hub()
    with consuming(broker_url, no_ack=True) as (connection, got):
        connection.register_with_event_loop(hub)
        for count in (2, 3):
            connection.SimpleQueue(Queue("tasks", routing_key="tasks")).put({"job": count})
            run_until(hub, got, count)
            connection.default_channel.client.connection._sock.shutdown(socket.SHUT_RDWR)
            run_until_lost(hub, connection)
    hub.close()


@pytest.mark.usefixtures("broker")
def test_several_queues_alternate_and_a_remaining_one_is_polled_alone(broker_url: str) -> None:
    left, right = (Queue(name, routing_key=name, no_ack=True) for name in ("left", "right"))
    got: list[str] = []
    with Connection(broker_url, transport=TRANSPORT) as connection:
        for queue in (left, right) * 3:
            connection.SimpleQueue(queue).put(queue.name)
        with connection.Consumer([left], on_message=lambda message: got.append(message.payload)) as consumer:
            connection.drain_events(timeout=120)
            consumer.add_queue(right)
            consumer.consume()
            connection.drain_events(timeout=120)
            connection.drain_events(timeout=120)
            consumer.cancel_by_queue(left.name)
            connection.drain_events(timeout=120)
    assert (got[0], sorted(got[1:3]), got[3:]) == ("left", ["left", "right"], ["right"])


@pytest.mark.usefixtures("broker")
def test_a_broadcast_is_received_after_its_connection_was_cut(broker_url: str) -> None:
    hub, broadcast = Hub(), Exchange("broadcast", type="fanout")
    with Connection(broker_url, transport=TRANSPORT) as listening, Connection(broker_url) as sending:
        got: list[Any] = []
        with listening.Consumer([Queue("listener", exchange=broadcast, no_ack=True)], on_message=got.append):
            listening.register_with_event_loop(hub)
            for cuts in (0, 1):
                for _ in range(200):  # a broadcast before the queue exists is lost
                    sending.Producer(exchange=broadcast).publish({"cuts": cuts}, declare=[broadcast])
                    hub.run_once()
                    if received := any(message.payload["cuts"] == cuts for message in got):
                        break
                assert received, f"no broadcast arrived after {cuts} cuts"
                listening.default_channel.subclient.connection._sock.shutdown(socket.SHUT_RDWR)
                run_until_lost(hub, listening)
    hub.close()


def test_sentinels_that_lead_nowhere_are_one_short_line() -> None:
    nowhere = ";".join(f"sentinel://127.0.0.1:{free_port()}" for _ in range(2))
    lost = Connection(nowhere, transport=SENTINEL_TRANSPORT, transport_options={"master_name": "uploads"})
    with lost, pytest.raises(OperationalError, match=r"^no sentinel answers, or none has a master uploads; "):
        lost.default_channel.client.ping()


def run_until(hub: Hub, got: list[Any], count: int) -> None:
    for _ in range(200):
        hub.run_once()
        if len(got) == count:
            return
    pytest.fail(f"{len(got)} messages instead of {count}")


def run_until_lost(hub: Hub, connection: Connection) -> None:
    """Run the loop until it reports the lost connection; a worker then continues with the same loop."""
    for _ in range(200):
        try:
            hub.run_once()
        except connection.connection_errors:
            return
    pytest.fail("the loop does not report the lost connection")
