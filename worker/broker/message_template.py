"""Task messages for the price of what differs in them; the rest is made once, by Celery and kombu themselves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.connection import Connection
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps

from worker.broker.capture_transport import Transport as Tray
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from celery import Celery
    from kombu.messaging import Producer

    from worker.jobs.task_names import TaskName

_ID, _TOLD, _SHOWN, _BODY, _TAG = "@id@", {"@told@": 0}, "@shown@", "@body@", "@tag@"
"""What a prototype has where messages differ."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """What one message says.

    Attributes:
        name: of the task.
        task_id: what Celery and Flower know it by.
        told: the task's keyword arguments, which JSON can say.
        shown: the same as an operator reads it.
    """

    name: TaskName
    task_id: str
    told: dict[str, Any]
    shown: str


def publish(app: Celery, producer: Producer, hint: TaskMessage) -> None:
    """Publish a message as Celery does; raises what the transport raises."""
    message = app.amqp.as_task_v2(  # shown in the place of the positional ones: the others Flower tries to evaluate
        hint.task_id, hint.name, args=(), kwargs=hint.told, argsrepr=hint.shown, kwargsrepr="{}"
    )
    producer.publish(
        message.body, headers=message.headers, serializer="json", exchange="", routing_key=QUEUE, **message.properties
    )


class MessageTemplate:
    """The messages of one task as kombu's Redis transport writes them into a list."""

    def __init__(self, app: Celery, name: TaskName) -> None:
        """Have Celery and kombu make the prototype; connects to nothing."""
        with Connection(transport=Tray) as connection:  # not by the broker's URL: kombu takes its transport from there
            producer = connection.Producer()
            publish(app, producer, TaskMessage(name, _ID, _TOLD, _SHOWN))
            channel, made = producer.channel, producer.channel.last
        properties = made["properties"]
        self._encode, self._encoding = channel.encode_body, properties["body_encoding"]
        self._body = _format(bytes_to_str(channel.decode_body(made["body"], self._encoding)), told=_TOLD)
        made["body"], properties["delivery_tag"] = _BODY, _TAG
        self._text = _format(dumps(made), id=_ID, shown=_SHOWN, body=_BODY, tag=_TAG)

    def seal(self, hint: TaskMessage) -> str:
        """Return the message of a hint of this task; no two have the same delivery tag."""
        body, _ = self._encode(self._body % {"told": json.dumps(hint.told)}, self._encoding)
        return self._text % {
            "id": json.dumps(hint.task_id),
            "shown": json.dumps(hint.shown),
            "body": json.dumps(body),
            "tag": json.dumps(os.urandom(16).hex()),
        }


def _format(text: str, **marks: Any) -> str:
    """Return JSON as a format with a field wherever one of the marks is."""
    text = text.replace("%", "%%")
    for field, mark in marks.items():
        text = text.replace(dumps(mark), f"%({field})s")
    return text
