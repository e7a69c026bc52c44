"""The way to the broker: task messages in one batch, the queue's length, and whether the broker was emptied.

Written for kombu 5.7: `Channel.client` of its Redis transport, and the list that holds a queue there.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from kombu.entity import Queue
from kombu.exceptions import BatchPublishError, OperationalError
from redis.exceptions import ResponseError

from worker.broker.message_template import MessageTemplate, TaskMessage, is_observed, publish
from worker.config.broker_tls import failure
from worker.errors import SettingsError
from worker.ids import task_id
from worker.jobs.task_names import QUEUE, TASK_OF, TaskName
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from kombu.connection import Connection
    from kombu.messaging import Producer

    from worker.jobs.rows import Dispatched

log = get_logger(__name__)
CANARY = "sliceway:canary"
ALONE_AFTER_DEATHS = 2
"""After so many deaths of workers that held it, a slice runs alone in its process."""


class TaskKwargs(TypedDict):
    """The keyword arguments of a task: ids and tokens; all else it reads under its claim."""

    job: str
    token: int
    epoch: int
    number: NotRequired[int]
    alone: NotRequired[bool]


class Broker:
    """One connection to the broker, used by one thread.

    Every call may raise one of `errors`; after that `close` and go on: the next call connects again.
    """

    def __init__(self, app: Celery, *, has_templates: bool = True) -> None:
        """Connect to nothing yet.

        Args:
            app: whose tasks are published.
            has_templates: messages for Redis are made of templates, and not each by Celery.
        """
        self._app, self._has_templates = app, has_templates
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._templates: dict[tuple[TaskName, bool], MessageTemplate] = {}
        self._at_most: int | None = None
        connection = app.connection_for_write()
        self.errors: tuple[type[Exception], ...] = (
            *connection.recoverable_connection_errors,
            *connection.recoverable_channel_errors,
            OperationalError,
            BatchPublishError,  # what befalls a batch is wrapped in this, where the transport has batches
        )

    def publish(self, items: Sequence[Dispatched]) -> None:
        """Publish a message for each dispatched step or slice, in one round trip where the transport can."""
        producer = self._connected()
        messages = [task_message(item) for item in items]
        client = _redis(producer.channel) if self._has_templates and not is_observed() else None
        if client is None:
            self._at_most = None
            with producer.batch():
                for message in messages:
                    publish(self._app, producer, message)
        elif messages:  # as kombu would, several times cheaper
            self._at_most = int(client.lpush(QUEUE, *[self._template(each).render(each) for each in messages]))

    def _template(self, message: TaskMessage) -> MessageTemplate:
        kind = (message.name, message.traceparent is not None)
        if kind not in self._templates:
            self._templates[kind] = MessageTemplate(self._app, message.name, traced=kind[1])
        return self._templates[kind]

    def length(self) -> int:
        """Return how many messages wait in the queue."""
        channel = self._connected().channel
        if (client := _redis(channel)) is None:
            return int(Queue(QUEUE)(channel).queue_declare().message_count)
        return int(client.llen(QUEUE))  # all our messages have the one priority, so the queue is one list

    def holds(self, limit: int) -> bool:
        """Say whether so many messages wait in the queue, or more.

        Only publishing makes it longer, and is answered with its length: the broker is asked where that does not settle
        it. What another leader publishes at the same time is counted from the next `publish` on.
        """
        if self._at_most is None or self._at_most >= limit:
            self._at_most = self.length()
        return self._at_most >= limit

    def was_emptied(self) -> bool:
        """Say whether the broker lost its contents since the last call; False where the transport cannot tell."""
        client = _redis(self._connected().channel)
        return client is not None and bool(client.set(CANARY, uuid.uuid4().hex, nx=True))

    def _connected(self) -> Producer:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            self._connection.ensure_connection(max_retries=0)
            self._producer = self._connection.Producer()
        return self._producer

    def close(self) -> None:
        """Let go of the connection, whatever state it is in."""
        connection, self._connection, self._producer, self._at_most = self._connection, None, None, None
        if connection is not None:
            with suppress(*self.errors):
                connection.release()


def task_message(item: Dispatched) -> TaskMessage:
    """Return what the message of a dispatched step or slice says."""
    name = TASK_OF[item.state]
    part = name if item.number is None else str(item.number)
    message_id = task_id(item.job_id, part, item.epoch, item.run)
    return TaskMessage(name, message_id, kwargs(item), argsrepr(item), item.traceparent)


def kwargs(item: Dispatched) -> TaskKwargs:
    """Return the keyword arguments of the item's task."""
    given: TaskKwargs = {"job": str(item.job_id), "token": item.token, "epoch": item.epoch}
    if item.number is not None:
        given["number"] = item.number
    if item.deaths >= ALONE_AFTER_DEATHS:
        given["alone"] = True
    return given


def argsrepr(item: Dispatched) -> str:
    """Return the arguments as an operator reads them in Flower."""
    text = f"job={item.job_id} {item.store}:{item.key}"
    if item.number is not None and item.offset_bytes is not None and item.slice_size_bytes is not None:
        end = item.offset_bytes + item.slice_size_bytes
        text += f" slice {item.number + 1}/{item.slices_total} bytes {item.offset_bytes}-{end - 1}"
    return text


def check_safe(app: Celery) -> None:
    """Refuse a broker that would drop messages by itself; one that is away is waited for elsewhere.

    Raises:
        SettingsError: its memory policy evicts keys; says which policy, and what to set.
    """
    with app.connection_for_read() as connection:
        away = (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors, OperationalError)
        try:
            policy = _memory_policy(connection)
        except away as error:
            what, advice = failure(error) or (str(error), "Work waits in the database until it answers.")
            log.warning("broker.away", error=what, advice=advice)
            return
    if policy not in (None, "noeviction"):
        raise SettingsError(
            f"SLICEWAY_BROKER_URL: the server evicts keys (maxmemory-policy {policy}), so queued messages would vanish",
            advice="Set maxmemory-policy to noeviction.",
        )


def _redis(channel: Any) -> Any:
    """Return the channel's client of a Redis server; None where the broker is another one."""
    return channel.client if getattr(channel.connection, "driver_type", None) == "redis" else None


def _memory_policy(connection: Connection) -> str | None:
    if (client := _redis(connection.default_channel)) is None:
        return None
    policy: str | None = None
    with suppress(ResponseError):  # a server that hides its settings, from all users or from this one
        policy = client.info("memory").get("maxmemory_policy")
    if policy is None:
        with suppress(ResponseError):
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
    return policy
