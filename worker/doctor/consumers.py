"""What the doctor asks the workers over the broker: whether any of those that answer takes our messages."""

# mypy: allow-untyped-calls
from __future__ import annotations

from typing import TYPE_CHECKING

from celery import Celery
from kombu.exceptions import OperationalError

from worker.broker.redis_transport import options
from worker.config import broker_tls
from worker.doctor.findings import Finding, Level
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.config.broker_url import BrokerUrl

ANSWER_S = 1.0
"""How long workers have to answer; those that do not are the business of the check of their heartbeats."""


def consumers(url: BrokerUrl) -> Iterator[Finding]:
    """See that work is taken, if any worker answers: those of 0.1 could be made to stop taking it, unseen."""
    with Celery("doctor", broker=url.for_kombu(), set_as_current=False) as app:
        app.conf.update(broker_use_ssl=broker_tls.for_kombu(url), broker_transport_options=options(url))
        connection = app.connection_for_write()
        try:
            answers = app.control.inspect(timeout=ANSWER_S, connection=connection).active_queues() or {}
        except (OperationalError, *connection.connection_errors, *connection.channel_errors):
            return  # a broker that is full, say, which the other checks have seen
        finally:
            connection.release()
    if answers and not any(queue["name"] == QUEUE for queues in answers.values() for queue in queues or ()):
        text = f"{len(answers)} {'worker answers' if len(answers) == 1 else 'workers answer'}, and none takes messages"
        advice = f"Restart the workers; somebody had them stop taking from the queue {QUEUE} (cancel_consumer)."
        yield Finding("broker consumers", Level.FAILED, text, advice)
