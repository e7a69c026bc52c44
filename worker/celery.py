"""The Celery application: `celery -A worker worker` runs a whole worker, with heartbeat and dispatcher.

Postgres decides, Celery executes. Celery acknowledges a message before it runs the task, because the claim in the
database replaces the acknowledgement. Celery does not delay, retry or chain tasks, and stores no results.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from celery import Celery, concurrency, signals
from celery.platforms import SecurityWarning
from kombu.entity import Queue

from worker.broker.transport_options import options
from worker.config import broker_tls
from worker.config.celery_parts import threads, why_stock
from worker.config.imports import import_modules_or_exit
from worker.config.settings import load_settings
from worker.errors import SlicewayError
from worker.jobs.task_names import QUEUE, TaskName
from worker.runtime import control
from worker.runtime.bootsteps import Engine, EventBatches, NoAcknowledgements, RedactedEvents
from worker.runtime.concurrency import most_tasks
from worker.telemetry.log import set_up

if TYPE_CHECKING:
    from worker.config.settings import Settings

POOL = "worker.runtime.task_pool:TaskPool"
STRATEGY = "worker.runtime.task_strategy:strategy"


def make_app(settings: Settings) -> Celery:
    """Return the application for these settings, without a connection."""
    made = Celery("sliceway", broker=settings.broker.for_kombu(), set_as_current=True)
    control.register()
    made.conf.update(
        broker_use_ssl=broker_tls.for_kombu(settings.broker),
        task_default_queue=QUEUE,
        task_queues=[Queue(QUEUE, routing_key=QUEUE)],
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_send_task_events=True,  # Flower
        task_send_sent_event=False,
        worker_consumer="worker.runtime.consumer:Consumer",
        worker_pool="threads",
        worker_concurrency=threads(settings),
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the upload does not need the broker
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a server may refuse a command only for a while
        broker_connection_timeout=2,
        broker_transport_options=options(settings.broker),
    )
    made.steps["worker"].add(Engine)
    made.steps["consumer"].add(RedactedEvents)
    if why_stock(settings) is None:
        _take_short_path(made, settings)
    return made


def _take_short_path(made: Celery, settings: Settings) -> None:
    """Use the strategy, the pool and the transport of Sliceway in place of Celery's and kombu's."""
    from worker.broker import amqp_guard, redis_transport  # noqa: PLC0415 - only with the versions written for

    redis = settings.broker.is_redis
    (redis_transport if redis else amqp_guard).register()
    concurrency.ALIASES["threads"] = POOL  # `-P threads` means our pool, too
    made.conf.update(
        # on Redis without acknowledgements: a copy of each message until its acknowledgement would cost more than the
        # fetch itself, and the dispatcher publishes a lost message again; on other brokers the prefetch limit needs
        # acknowledgements
        task_queues=[Queue(QUEUE, routing_key=QUEUE, no_ack=redis)],
        task_annotations={name: {"Strategy": STRATEGY} for name in TaskName},
        worker_pool=POOL,
        worker_concurrency=most_tasks(settings.worker_threads),
        # an idle process cannot get a message that a busy one has prefetched; Celery supports this on Redis only
        worker_disable_prefetch=redis,
    )
    made.steps["consumer"].add(EventBatches)
    if redis:
        made.steps["consumer"].add(NoAcknowledgements)


@signals.setup_logging.connect
def _on_setup_logging(**_: Any) -> None:
    """Set up our logging. Celery does not set up its own if this signal has a receiver."""
    settings = load_settings()
    set_up(settings.log_format, settings.log_level)
    for name in ("celery.worker.strategy", "celery.app.trace"):  # they log each slice; our events say more
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").addFilter(is_unexpected)


def is_unexpected(record: logging.LogRecord) -> bool:
    """Whether a failure that Celery logs, at length, has no line of ours: `task.failed` says all of an expected one."""
    return not (record.exc_info and isinstance(record.exc_info[1], SlicewayError))


def _set_up_logging(settings: Settings) -> None:
    """Set up our logging if there is none yet: Flower sends no signal, and keeps a logging that is set up."""
    if not logging.getLogger().handlers:
        set_up(settings.log_format, settings.log_level)


warnings.filterwarnings("ignore", category=SecurityWarning)  # about pickle under root; pickle is not accepted here
settings = load_settings()
_set_up_logging(settings)
import_modules_or_exit(settings.import_)
app = make_app(settings)
