"""Asks the workers over the broker whether at least one of them consumes our queue."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING

from celery import Celery
from kombu.exceptions import OperationalError

from worker.broker.transport_options import options
from worker.config import broker_tls
from worker.doctor.findings import Finding, Level
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.config.broker_url import BrokerUrl

ANSWER_S = 1.0
"""How long workers have to answer. The check of heartbeats covers workers that do not."""


def consumers(url: BrokerUrl) -> Iterator[Finding]:
    """Check that a worker consumes the queue, if any worker answers. `cancel_consumer` stops workers of release 0.1."""
    with Celery("doctor", broker=url.for_kombu(), set_as_current=False) as app:
        app.conf.update(broker_use_ssl=broker_tls.for_kombu(url), broker_transport_options=options(url))
        connection = app.connection_for_write()
        try:
            answers = app.control.inspect(timeout=ANSWER_S, connection=connection).active_queues() or {}
        except (OperationalError, *connection.connection_errors, *connection.channel_errors):
            return  # for example a full broker; other checks report it
        finally:
            connection.release()
    if answers and not any(queue["name"] == QUEUE for queues in answers.values() for queue in queues or ()):
        text = f"{len(answers)} {'worker answers' if len(answers) == 1 else 'workers answer'}, and none takes messages"
        advice = f"Restart the workers: a cancel_consumer command has stopped them on the queue {QUEUE}."
        yield Finding("broker consumers", Level.FAILED, text, advice)
