"""Celery's consumer for messages that anybody may have written: what is none of ours costs a log line, and no process.

The row is what brings work back, so a message that cannot be understood is dropped, whoever wrote it. Celery itself
ends a process by an exception that it does not expect, and logs the message at length where it expects it.

Written for Celery 5.7: `Consumer.create_task_handler` and `on_decode_error`, and what its loop takes for a loss.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals
from celery.worker import consumer
from kombu.message import Message

from worker.jobs.task_names import TaskName
from worker.telemetry.log import get_logger
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger(__name__)
_TASKS = frozenset(TaskName)
_HEADERS = ("task", "id", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin")
"""What a task is to know of its message: ours ask Celery for no callbacks, chords, stamps or the like."""
_TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
"""What OpenTelemetry is to know of it. Work matters more than its trace: one that is no text is left out."""
_HEADER_CHARS = 8192
"""More than a key and its store can have in `argsrepr`."""
_WHY_CHARS = 200


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Takes messages of our four tasks and nothing else."""

    def info(self) -> dict[str, object]:
        """Return what `inspect stats` and Flower show of the connection, without the passwords in it."""
        info: dict[str, object] = redact_json(super().info())
        return info

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Message], None]:
        """Return what takes each message of the queue."""
        receive = super().create_task_handler(*args, **options)
        # kombu counts every KeyError as the loss of a Redis connection
        lost = tuple(kind for kind in (*self.connection_errors, *self.channel_errors) if not issubclass(kind, KeyError))

        def take(message: Message) -> None:
            if why := _unlike_ours(message.headers):
                self._refuse(message, why)
                return
            given = message.headers
            message.headers = {name: given.get(name) for name in _HEADERS}
            message.headers |= {name: given[name] for name in _TRACE_HEADERS if _is_short_text(given.get(name))}
            try:
                receive(message)
            except lost:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is: it would end the process
                self._refuse(message, f"{type(error).__name__}: {error}")

        return take

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop what cannot be read; it may not even be a message yet."""
        self._refuse(message, f"{type(exc).__name__}: {exc}")

    def on_unknown_message(self, body: Any, message: Message) -> None:  # noqa: ARG002 - Celery's signature
        """Drop what is no task."""
        self._refuse(message, "it names no task")

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Drop what is none of our tasks."""
        self._refuse(message, f"unknown task {exc}")

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """Drop a task that cannot be called."""
        self._refuse(message, str(exc))

    def _refuse(self, message: Any, why: str) -> None:
        headers = message.headers if isinstance(message, Message) and isinstance(message.headers, dict) else {}
        refused(why, task_id=headers.get("id"))
        if isinstance(message, Message):
            if not message.acknowledged:
                message.reject_log_error(log, self.connection_errors)
            signals.task_rejected.send(sender=self, message=message, exc=None)


def refused(why: str, **keys: object) -> None:
    """Log a message that was dropped, in one line however long its parts are."""
    fields = {name: str(value)[:_WHY_CHARS] for name, value in keys.items() if value is not None}
    log.warning("message.refused", why=why[:_WHY_CHARS], **fields)


def _unlike_ours(headers: Any) -> str | None:
    """Say what shows at once that a message is none of ours; the rest shows when it is read."""
    if not isinstance(headers, dict):
        return "its headers are no object"
    task = headers.get("task")
    if not isinstance(task, str) or task not in _TASKS:
        return f"unknown task {task!r}"
    for name in _HEADERS:
        text = headers.get(name)
        if text is not None and not _is_short_text(text):
            return f"its {name} is no text, or too long a one"
    if headers.get("id") is None:
        return "it has no id"
    if headers.get("eta") or headers.get("expires"):
        return "it is to wait, or expires: ours never do"
    return None


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _HEADER_CHARS
