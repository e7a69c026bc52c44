"""How a task message goes through a worker process: received, run in a thread, ended, with an event of each.

Celery's own way serves every kind of task. Ours are acknowledged when they are taken, store no result, have no callback
and wait for no time. What Celery remembers of a task (for `inspect`, for a revoke), its events and `current_task` are
the same as in that way, and Celery's own code reports every end but the good one.

The signals are sent in Celery's own way only, so a message takes that way while a signal of tasks has a receiver, or a
tracer is not Celery's own: Sentry replaces `build_tracer`, OpenTelemetry connects to signals.

Written for Celery 5.7: the strategy's signature, `Request.on_accepted` and `on_failure`, the task's `request_stack`,
`celery._state._task_stack`, `TraceInfo.handle_error_state`, `build_tracer`, and the sets of `celery.worker.state`.
"""

from __future__ import annotations

import json
import os
from time import monotonic
from types import FunctionType
from typing import TYPE_CHECKING, Any

from celery import signals
from celery._state import _task_stack
from celery.app import trace
from celery.app.task import Context
from celery.app.trace import TraceInfo, traceback_clear
from celery.exceptions import Ignore, InvalidTaskError, Retry
from celery.states import FAILURE, RETRY
from celery.worker.request import Request
from celery.worker.state import revoked, task_ready, task_reserved
from celery.worker.strategy import default

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery import Celery, Task
    from kombu.message import Message

_BODY_PARTS = 3
"""Positional arguments, keyword arguments, and what is to follow."""
_RECEIVERS: tuple[list[Any], ...] = tuple(
    signal.receivers
    for signal in (
        signals.task_received,
        signals.task_prerun,
        signals.task_postrun,
        signals.task_success,
        signals.task_failure,
        signals.task_retry,
        signals.task_internal_error,
    )
)
"""The receivers of the signals that only Celery's own way sends; Celery's tracer holds on to these lists, too."""


class Delivery(Request):  # type: ignore[misc]
    """A message that was received, until its task has ended."""

    def run(self) -> None:
        """Run the task in this thread; its end is reported, however it ends, and its slot is free again."""
        try:
            self._run()
        except BaseException:
            task_ready(self)
            raise

    def _run(self) -> None:
        began_s = monotonic()
        self.on_accepted(os.getpid(), began_s)
        context = Context(self.request_dict, called_directly=False, headers={})  # headers left out are looked for
        _task_stack.push(self.task)
        self.task.request_stack.push(context)
        try:
            self.task.run(*self.args, **self.kwargs)
        except Ignore:
            task_ready(self)
        except Retry as error:
            self._report(RETRY, error, context)
        except Exception as error:  # noqa: BLE001 - this is where it ends
            self._report(FAILURE, error, context)
        else:
            task_ready(self)
            self.send_event("task-succeeded", result="None", runtime=monotonic() - began_s)
        finally:
            self.task.request_stack.pop()
            _task_stack.pop()

    def _report(self, end: str, error: Exception, context: Context) -> None:
        described = TraceInfo(end, error).handle_error_state(self.task, context)
        traceback_clear(error)
        self.on_failure(described, return_ok=True)


def strategy(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Return what takes the messages of a task: a `Strategy` in Celery's sense.

    A message that has more to it than our dispatcher's, or a task that is observed or that an operator has limited in
    rate, goes Celery's own way.
    """
    celerys_own = default(task, app, consumer)
    is_traced = not _is_celerys_tracer()  # the consumer has just built the task's tracer
    given = {
        "app": app,
        "task": task,
        "hostname": consumer.hostname,
        "eventer": consumer.event_dispatcher,
        "connection_errors": consumer.connection_errors,
    }

    def receive(
        message: Message, body: Any, ack: Any, reject: Any, callbacks: Iterable[Callable[[Request], Any]]
    ) -> None:
        parts = None if is_traced or body is not None or any(_RECEIVERS) else _parts(message)
        if parts is None or consumer.task_buckets[task.name]:
            celerys_own(message, body, ack, reject, callbacks)
            return
        delivery = Delivery(
            message, on_ack=ack, on_reject=reject, body=parts, decoded=True, headers=message.headers, **given
        )
        if delivery.id in revoked and delivery.revoked():
            return
        # all fields that Celery documents: `celery events --dump` fails without one. What the task is about stands in
        # `args`: Flower would parse a text in `kwargs` as Python with each event, "{}" too
        delivery.send_event(
            "task-received", name=delivery.name, args=delivery.argsrepr, kwargs=None, root_id=delivery.root_id,
            parent_id=None, retries=0, eta=None,
        )  # fmt: skip
        task_reserved(delivery)
        for callback in callbacks:
            callback(delivery)
        consumer.pool.submit(delivery.run)

    return receive


def _is_celerys_tracer() -> bool:
    """Whether `build_tracer` is Celery's own; a wrapper may show the name, the module or the code of what it wraps."""
    build, own = trace.build_tracer, trace.trace_task
    return isinstance(build, FunctionType) and build.__code__.co_filename == own.__code__.co_filename


def _parts(message: Message) -> list[Any] | None:
    """Return what a message says if it is as our dispatcher writes them.

    Raises:
        InvalidTaskError: no task can be called with it.
    """
    headers = message.headers
    if message.content_type != "application/json" or headers.get("eta") or headers.get("expires"):
        return None
    try:
        parts = json.loads(message.body)
    except ValueError:
        return None
    if isinstance(parts, dict):
        raise InvalidTaskError("it is of an older protocol")
    if not isinstance(parts, list) or len(parts) != _BODY_PARTS:
        return None
    if not isinstance(parts[0], list) or not isinstance(parts[1], dict):
        raise InvalidTaskError("its arguments are no list and no object")
    return parts
