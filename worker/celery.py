"""The Celery application: `celery -A worker worker` is a whole worker, with heartbeat and dispatcher.

Configured for one thing: Postgres decides, Celery executes. A message is acknowledged when it is taken, for the row
is the acknowledgement that counts; nothing is delayed, retried, chained or stored as a result here.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from celery import Celery, concurrency, signals
from celery.platforms import SecurityWarning
from kombu.entity import Queue

from worker.broker import amqp_guard, redis_transport
from worker.config import broker_tls
from worker.config.settings import load_settings
from worker.jobs.task_names import QUEUE
from worker.runtime import control
from worker.runtime.bootsteps import Engine, EventBatches, NoAcknowledgements
from worker.runtime.concurrency import most_tasks
from worker.telemetry.log import set_up

if TYPE_CHECKING:
    from worker.config.settings import Settings

POOL = "worker.runtime.task_pool:TaskPool"


def make_app(settings: Settings) -> Celery:
    """Return the application for an installation; connects to nothing."""
    made = Celery("sliceway", broker=settings.broker.for_kombu(), set_as_current=True)
    concurrency.ALIASES["threads"] = POOL  # `-P threads` is what it is
    control.register()
    redis = settings.broker.is_redis
    (redis_transport if redis else amqp_guard).register()
    made.conf.update(
        broker_use_ssl=broker_tls.for_kombu(settings.broker),
        task_default_queue=QUEUE,
        # on Redis a message is gone once it is fetched: to keep a copy until the acknowledgement costs more than the
        # fetch itself, and the row is what brings it back; elsewhere the prefetch limit needs acknowledgements
        task_queues=[Queue(QUEUE, routing_key=QUEUE, no_ack=redis)],
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_send_task_events=True,  # Flower
        task_send_sent_event=False,
        worker_consumer="worker.runtime.consumer:Consumer",
        worker_pool=POOL,
        worker_concurrency=most_tasks(settings.worker_threads),
        worker_prefetch_multiplier=1,
        # a message that waits in a busy process is one that an idle one does not get; elsewhere Celery cannot do it
        worker_disable_prefetch=redis,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the upload does not need the broker
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a server that refuses a command does not do so for ever
        broker_connection_timeout=2,
        broker_transport_options=redis_transport.options(settings.broker),
    )
    made.steps["worker"].add(Engine)
    made.steps["consumer"].add(EventBatches)
    if redis:
        made.steps["consumer"].add(NoAcknowledgements)
    return made


@signals.setup_logging.connect
def _on_setup_logging(**_: Any) -> None:
    """Log as the whole installation does; Celery leaves the logging alone where somebody answers this."""
    settings = load_settings()
    set_up(settings.log_format, settings.log_level)
    for name in ("celery.worker.strategy", "celery.app.trace"):  # a line or two a slice; our own events say more
        logging.getLogger(name).setLevel(logging.WARNING)


def _log_as_the_rest(settings: Settings) -> None:
    """Set the logging up where nothing has yet: Flower has no signal for it, and leaves it alone if it is there."""
    if not logging.getLogger().handlers:
        set_up(settings.log_format, settings.log_level)


warnings.filterwarnings("ignore", category=SecurityWarning)  # of pickle under root, which is not accepted here
settings = load_settings()
_log_as_the_rest(settings)
app = make_app(settings)
