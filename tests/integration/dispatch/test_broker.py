"""A published message equals Celery's own; a broker that refuses messages counts as unavailable."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery, signals
from opentelemetry import propagate

from tests.integration.dispatch.harness import eventually, read_message
from worker.broker.publisher import Broker, argsrepr, kwargs
from worker.ids import new_id, task_id
from worker.jobs.rows import Dispatched
from worker.jobs.states import JobState
from worker.jobs.task_names import QUEUE, TASK_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from tests.integration.dispatch.harness import DispatcherHarness
    from worker.local.valkey import EmbeddedValkey

Row = dict[str, Any]
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def row(
    state: str = "uploading",
    number: int | None = 3,
    *,
    deaths: int = 0,
    key: str = "backup/file.bin",
    traceparent: str | None = None,
) -> Dispatched:
    """A dispatched slice, or a step if it has no number."""
    return Dispatched(
        new_id(), number, token=7, epoch=2, run=1, state=JobState(state), store="main", key=key, deaths=deaths,
        offset_bytes=3 << 20, slice_size_bytes=1 << 20, slices_total=300, traceparent=traceparent,
    )  # fmt: skip


@pytest.fixture
def app(broker_url: str) -> Celery:
    made = Celery("dispatcher", broker=broker_url, set_as_current=False)
    made.conf.update(broker_transport="worker.broker.redis_transport:Transport", task_default_queue=QUEUE)
    return made


@pytest.fixture
def broker(app: Celery) -> Iterator[Broker]:
    made = Broker(app)
    yield made
    made.close()


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as made:
        yield made


def publish_as_celery(app: Celery, row: Dispatched) -> None:
    name = TASK_OF[row.state]
    part = name if row.number is None else str(row.number)
    message = app.amqp.as_task_v2(
        task_id(row.job_id, part, row.epoch, row.run), name, args=(), kwargs=kwargs(row),
        argsrepr=argsrepr(row), kwargsrepr="{}",
    )  # fmt: skip
    if row.traceparent is not None:
        message.headers["traceparent"] = row.traceparent
    with app.connection_for_write() as connection:
        connection.Producer().publish(
            message.body, headers=message.headers, serializer="json", exchange="", routing_key=QUEUE,
            **message.properties,
        )  # fmt: skip


def oldest_message(app: Celery) -> dict[str, Any]:
    """Return everything in the oldest message, as kombu reads it, without its unique tag."""
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(QUEUE, no_ack=True)
    assert message.properties.pop("delivery_tag") == message.delivery_tag
    return {
        "headers": message.headers,
        "properties": message.properties,
        "content": (message.content_type, message.content_encoding, message.body),
        "payload": message.payload,
        "parts": list(message._raw),
    }


@pytest.mark.parametrize(
    "row",
    [
        row(),
        row("queued", None),
        row("finishing", None),
        row("cancelling", None, deaths=1),
        row(deaths=2),
        row(key='100 % of "ümlaut"/\\ %(id)s @id@ @kwargs@ @argsrepr@ @body@ @tag@ @traceparent@ \u2028'),
        row(traceparent=TRACEPARENT),
        row("queued", None, key="@traceparent@", traceparent=TRACEPARENT),
    ],
    ids=["slice", "init", "finish", "abort", "alone", "awkward", "traced", "traced-init"],
)
def test_a_message_is_the_one_that_celery_would_have_sent(app: Celery, broker: Broker, row: Dispatched) -> None:
    broker.publish([row])
    publish_as_celery(app, row)
    assert oldest_message(app) == oldest_message(app)


def test_a_message_of_a_job_without_a_trace_has_no_header_for_one(app: Celery, broker: Broker) -> None:
    rows = [row(), row(traceparent=TRACEPARENT), row()]
    broker.publish(rows)
    headers = [oldest_message(app)["headers"] for _ in rows]
    assert [each.get("traceparent", "none") for each in headers] == ["none", TRACEPARENT, "none"]
    assert headers[0].keys() == headers[2].keys() == headers[1].keys() - {"traceparent"}


def test_whoever_listens_publishes_in_the_trace_of_the_job(app: Celery, broker: Broker) -> None:
    seen: list[str | None] = []

    def before(headers: dict[str, Any], **_: Any) -> None:
        parent: dict[str, str] = {}
        propagate.inject(parent)
        seen.extend((headers.get("traceparent"), parent.get("traceparent")))

    signals.before_task_publish.connect(before)
    try:
        broker.publish([row(), row(traceparent=TRACEPARENT), row()])
    finally:
        signals.before_task_publish.disconnect(before)
    assert seen == [None, None, TRACEPARENT, TRACEPARENT, None, None]
    assert [oldest_message(app)["headers"].get("traceparent") for _ in range(3)] == [None, TRACEPARENT, None]


def test_whoever_listens_sees_each_message_before_and_after_and_may_add_to_it(app: Celery, broker: Broker) -> None:
    seen: list[tuple[str, str]] = []

    def before(sender: str, headers: dict[str, Any], **_: Any) -> None:
        seen.append(("before", headers["id"]))
        headers["traceparent"] = f"of {sender}"

    def after(headers: dict[str, Any], **_: Any) -> None:
        seen.append(("after", headers["id"]))

    rows = [row(), row("finishing", None)]
    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        broker.publish(rows)
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    published = [oldest_message(app)["headers"] for _ in rows]
    assert [headers["traceparent"] for headers in published] == [f"of {TASK_OF[one.state]}" for one in rows]
    assert seen == [(when, headers["id"]) for headers in published for when in ("before", "after")]
    assert broker.length() == 0
    broker.publish([rows[0]])
    assert "traceparent" not in oldest_message(app)["headers"]


def test_the_messages_of_a_tick_go_in_one_command_and_keep_their_order(broker: Broker, client: redis.Redis) -> None:
    rows = [row("queued", None), *(row(number=number) for number in range(5)), row("finishing", None)]
    broker.publish(rows)
    assert client.info("commandstats")["cmdstat_lpush"]["calls"] == 1
    queue = client.lrange(QUEUE, 0, -1)
    assert isinstance(queue, list)
    assert [read_message(raw).unit for raw in reversed(queue)] == [(one.job_id, one.number) for one in rows]


def test_no_two_messages_have_the_same_tag(app: Celery, broker: Broker) -> None:
    broker.publish([row(), row()])
    with app.connection_for_read() as connection:
        tags = {connection.default_channel.basic_get(QUEUE, no_ack=True).delivery_tag for _ in range(2)}
    assert len(tags) == 2


def test_the_queue_length_is_read_only_where_the_published_count_leaves_it_open(
    broker: Broker, client: redis.Redis
) -> None:
    assert not broker.holds(1)
    broker.publish([row(), row(), row()])
    client.config_resetstat()
    assert not broker.holds(4)
    assert "cmdstat_llen" not in client.info("commandstats")
    assert broker.holds(3)
    client.rpop(QUEUE)
    assert not broker.holds(3)
    assert broker.holds(2)


def test_what_others_publish_counts_with_the_next_message_or_connection(broker: Broker, app: Celery) -> None:
    broker.publish([row()])
    for _ in range(3):
        publish_as_celery(app, row())
    broker.publish([row()])
    assert broker.holds(5)
    publish_as_celery(app, row())
    broker.close()
    assert broker.holds(6)


def test_nothing_is_published_of_nothing(broker: Broker) -> None:
    broker.publish([])
    assert broker.length() == 0


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def read_only(client: redis.Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@pytest.mark.parametrize("state", [full, read_only])
def test_a_broker_that_refuses_messages_is_at_fault(
    broker: Broker, client: redis.Redis, state: Callable[[redis.Redis], AbstractContextManager[None]]
) -> None:
    broker.publish([row()])
    with state(client), pytest.raises(broker.errors):
        broker.publish([row()])
    broker.close()
    broker.publish([row()])
    assert broker.length() == 2


def test_a_broker_that_is_gone_is_at_fault(broker: Broker, valkey: EmbeddedValkey) -> None:
    broker.publish([row()])
    valkey.stop()
    try:
        with pytest.raises(broker.errors):
            broker.publish([row()])
    finally:
        valkey.start()
    broker.close()
    broker.publish([row()])
    assert broker.length() == 1


def test_the_dispatcher_waits_for_a_full_broker_as_for_an_unavailable_one(harness: DispatcherHarness) -> None:
    raised: list[Exception] = []
    foreign: list[Exception] = []

    class Watched(Broker):
        def publish(self, items: Sequence[Dispatched]) -> None:
            try:
                super().publish(items)
            except Exception as error:
                raised.append(error)
                foreign.extend([] if isinstance(error, self.errors) else [error])
                raise

    harness.db.worker = harness.db.start_worker(slots=3)
    harness.db.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")
    harness.queue.config_set("maxmemory", 1)
    try:
        job = harness.db.enqueue()
        harness.start(broker=Watched)
        eventually(lambda: raised, "a broker without memory took a message")
    finally:
        harness.queue.config_set("maxmemory", 0)
    (message,) = harness.wait_for(1)
    assert message.job == job
    assert not foreign, "the dispatcher would treat it as its own fault"
