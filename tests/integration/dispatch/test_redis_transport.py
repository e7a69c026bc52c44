"""Messages are fetched over the transport that leaves out what nobody needs, and nothing that somebody does."""

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
    """A consumer, and the one message that it is given."""
    with Connection(broker_url, transport=TRANSPORT) as connection:
        queue = Queue("hints", routing_key="hints", no_ack=no_ack)
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


def test_a_message_of_which_no_copy_is_kept_is_acknowledged_without_a_word(
    broker_url: str, broker: redis.Redis
) -> None:
    with consuming(broker_url, no_ack=True) as (_, [message]):
        message.ack()
    assert "cmdstat_zrem" not in broker.info("commandstats")


def test_and_rejected_without_coming_back(broker_url: str, broker: redis.Redis) -> None:
    with consuming(broker_url, no_ack=True) as (_, [message]):
        message.reject(requeue=True)
    assert broker.llen("hints") == 0


def test_a_copy_is_removed_by_the_acknowledgement(broker_url: str, broker: redis.Redis) -> None:
    with consuming(broker_url, no_ack=False) as (_, [message]):
        assert broker.hlen("unacked") == 1
        message.ack()
        assert broker.hlen("unacked") == 0


def test_and_put_back_by_a_rejection(broker_url: str, broker: redis.Redis) -> None:
    with consuming(broker_url, no_ack=False) as (_, [message]):
        message.reject(requeue=True)
    assert broker.llen("hints") == 1


@pytest.mark.usefixtures("broker")
def test_the_loop_hears_of_messages_again_after_its_connection_was_cut(broker_url: str) -> None:
    hub = Hub()
    with consuming(broker_url, no_ack=True) as (connection, got):
        connection.register_with_event_loop(hub)
        for count in (2, 3):
            connection.SimpleQueue(Queue("hints", routing_key="hints")).put({"job": count})
            turn_until(hub, got, count)
            connection.default_channel.client.connection._sock.shutdown(socket.SHUT_RDWR)
            turn_until_lost(hub, connection)
    hub.close()


@pytest.mark.usefixtures("broker")
def test_several_queues_take_turns_and_one_that_is_left_is_asked_for_alone(broker_url: str) -> None:
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
def test_what_is_told_to_all_is_heard_again_after_its_connection_was_cut(broker_url: str) -> None:
    hub, told = Hub(), Exchange("told", type="fanout")
    with Connection(broker_url, transport=TRANSPORT) as listening, Connection(broker_url) as telling:
        got: list[Any] = []
        with listening.Consumer([Queue("ear", exchange=told, no_ack=True)], on_message=got.append):
            listening.register_with_event_loop(hub)
            for cuts in (0, 1):
                for _ in range(200):  # nobody keeps for it what is told before it listens
                    telling.Producer(exchange=told).publish({"cuts": cuts}, declare=[told])
                    hub.run_once()
                    if heard := any(message.payload["cuts"] == cuts for message in got):
                        break
                assert heard, f"nothing was heard after {cuts} cuts"
                listening.default_channel.subclient.connection._sock.shutdown(socket.SHUT_RDWR)
                turn_until_lost(hub, listening)
    hub.close()


def test_sentinels_that_lead_nowhere_are_one_short_line() -> None:
    nowhere = ";".join(f"sentinel://127.0.0.1:{free_port()}" for _ in range(2))
    lost = Connection(nowhere, transport=SENTINEL_TRANSPORT, transport_options={"master_name": "uploads"})
    with lost, pytest.raises(OperationalError, match=r"^no sentinel answers, or none has a master uploads; "):
        lost.default_channel.client.ping()


def turn_until(hub: Hub, got: list[Any], count: int) -> None:
    for _ in range(200):
        hub.run_once()
        if len(got) == count:
            return
    pytest.fail(f"{len(got)} messages instead of {count}")


def turn_until_lost(hub: Hub, connection: Connection) -> None:
    """Turn until the loop has noticed; what a worker would do then is to go on with the same loop."""
    for _ in range(200):
        try:
            hub.run_once()
        except connection.connection_errors:
            return
    pytest.fail("the loop goes on as if nothing had happened")
