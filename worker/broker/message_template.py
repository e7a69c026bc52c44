"""Task messages for the price of what differs in them; the rest is made once, by Celery and kombu themselves.

Written for Celery 5.7 (`as_task_v2`) and kombu 5.7 (JSON with `body`, `headers` and `properties` in a list).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import signals
from kombu.connection import Connection
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps

from worker.broker.capture_transport import Transport as CaptureTransport
from worker.jobs.task_names import QUEUE
from worker.telemetry.tracing import under

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery
    from kombu.messaging import Producer

    from worker.jobs.task_names import TaskName

_ID, _KWARGS, _ARGSREPR, _BODY, _TAG = "@id@", {"@kwargs@": 0}, "@argsrepr@", "@body@", "@tag@"
"""What a prototype has where messages differ."""
_TRACEPARENT = "@traceparent@"
"""And what one of traced messages has."""
_RECEIVERS: tuple[list[Any], ...] = tuple(
    signal.receivers for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
)


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """What one message says.

    Attributes:
        name: of the task.
        task_id: what Celery and Flower know it by.
        kwargs: the task's keyword arguments, which JSON can say.
        argsrepr: the same as an operator reads it in Flower.
        traceparent: header that names the trace of the job's request; None: there is no such header.
    """

    name: TaskName
    task_id: str
    kwargs: Mapping[str, object]
    argsrepr: str
    traceparent: str | None = None


def is_observed() -> bool:
    """Whether a signal of published tasks has a receiver: it may change the message, so that each has to be made."""
    return any(_RECEIVERS)


def publish(app: Celery, producer: Producer, message: TaskMessage) -> None:
    """Publish a message as Celery does, with its signals, in its job's trace; raises what the transport raises."""
    made = app.amqp.as_task_v2(  # argsrepr, as Flower evaluates kwargsrepr
        message.task_id, message.name, args=(), kwargs=message.kwargs, argsrepr=message.argsrepr, kwargsrepr="{}"
    )
    if message.traceparent is not None:
        made.headers["traceparent"] = message.traceparent
    # nothing is declared: the workers declare the queue. Nothing is tried again: the dispatcher publishes again
    with under(message.traceparent):
        app.amqp.send_task_message(
            producer, message.name, made, queue=QUEUE, declare=[], serializer="json", retry=False
        )


class MessageTemplate:
    """The messages of one task as kombu's Redis transport writes them into a list."""

    def __init__(self, app: Celery, name: TaskName, *, traced: bool = False) -> None:
        """Have Celery and kombu make the prototype, with a `traceparent` if it is traced; connects to nothing."""
        # not by the broker's URL: kombu takes its transport from there
        with Connection(transport=CaptureTransport) as connection:
            producer = connection.Producer()
            publish(app, producer, TaskMessage(name, _ID, _KWARGS, _ARGSREPR, _TRACEPARENT if traced else None))
            channel, made = producer.channel, producer.channel.last
        properties = made["properties"]
        self._encode, self._encoding = channel.encode_body, properties["body_encoding"]
        self._body = _format(bytes_to_str(channel.decode_body(made["body"], self._encoding)), kwargs=_KWARGS)
        made["body"], properties["delivery_tag"] = _BODY, _TAG
        marks = {"id": _ID, "argsrepr": _ARGSREPR, "body": _BODY, "tag": _TAG, "traceparent": _TRACEPARENT}
        self._text = _format(dumps(made), **marks)

    def render(self, message: TaskMessage) -> str:
        """Return a message of this task as the broker keeps it; no two have the same delivery tag.

        The template must be traced if the message has a `traceparent`, and must not be if it has none.
        """
        body, _ = self._encode(self._body % {"kwargs": json.dumps(message.kwargs)}, self._encoding)
        return self._text % {
            "id": json.dumps(message.task_id),
            "argsrepr": json.dumps(message.argsrepr),
            "body": json.dumps(body),
            "tag": json.dumps(os.urandom(16).hex()),
            "traceparent": message.traceparent and json.dumps(message.traceparent),
        }


def _format(text: str, **marks: Any) -> str:
    """Return JSON as a format with a field wherever one of the marks is."""
    text = text.replace("%", "%%")
    for field, mark in marks.items():
        text = text.replace(dumps(mark), f"%({field})s")
    return text
