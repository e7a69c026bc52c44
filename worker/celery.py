"""The Celery application: `celery -A worker worker` is a whole worker, with heartbeat and dispatcher.

Configured for one thing: Postgres decides, Celery executes. A message is acknowledged when it is taken, for the row
is the acknowledgement that counts; nothing is delayed, retried, chained or stored as a result here.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery, bootsteps, concurrency, signals
from celery.exceptions import WorkerShutdown
from celery.platforms import SecurityWarning
from celery.worker import state
from kombu.entity import Queue

from worker import control
from worker.broker import amqp_guard, redis_transport
from worker.broker.publisher import Broker, check_safe
from worker.config import broker_tls
from worker.config.authorities import check_authorities
from worker.config.credentials import warn_of_short_secrets
from worker.config.settings import load_settings
from worker.db.upgrade import refuse_unexpected_pooler
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.notifier import Nudger
from worker.dispatch.wakeup import Wakeup
from worker.errors import SettingsError, SlicewayError
from worker.jobs.task_names import QUEUE
from worker.niceness import stop_yielding, yield_to_others
from worker.signals import leave_if_database_is_away, run_on_after_hangup
from worker.tasks import celery_tasks, slots
from worker.tasks.context import Runtime
from worker.tasks.liveness import EXIT_STUCK, PARENT_VARIABLE, Liveness
from worker.telemetry.log import get_log, set_up
from worker.telemetry.redact import redact_json
from worker.threads import TaskPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.config.settings import Settings

log = get_log(__name__)
FLUSH_EVENTS_EVERY_S = 0.2
EVENTS_MOST = 500
"""More than come in that time; a message of so many is some 150 KiB."""
POOL = "worker.threads:TaskPool"
DRAIN_S = 4.0
"""How long a stop waits for what is being sent to come to its next piece."""


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
        worker_consumer="worker.consumer:Consumer",
        worker_pool=POOL,
        worker_concurrency=slots.most_tasks(settings.worker_threads),
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


class EventBatches(bootsteps.StartStopStep):  # type: ignore[misc]
    """Sends the task events that Flower lives on a few times a second, not in every turn of the event loop.

    None shows a secret: the texts of errors are redacted on their way.
    """

    requires = ("celery.worker.consumer.events:Events",)
    timer: Any = None

    def start(self, parent: Any) -> None:
        """Flush by the clock; the buffer flushes by itself when it is full."""
        if parent.event_dispatcher is not None:
            parent.event_dispatcher.send = redacted(parent.event_dispatcher.send)
        if parent.hub is not None:
            parent.event_dispatcher.on_send_buffered = None
            parent.event_dispatcher.buffer_limit = EVENTS_MOST
            self.timer = parent.hub.call_repeatedly(FLUSH_EVENTS_EVERY_S, parent._flush_events)  # noqa: SLF001

    def stop(self, parent: Any) -> None:
        """Send what is left; a connection that was lost takes its events along."""
        if self.timer is not None:  # a consumer that lost its broker while it started is stopped all the same
            self.timer.cancel()
            parent._flush_events()  # noqa: SLF001


def redacted(send: Callable[..., Any]) -> Callable[..., Any]:
    """Return what sends events as ``send`` does, without the secrets in the texts of errors."""

    def send_redacted(type: str, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        return send(type, **redact_json(fields) if "exception" in fields else fields)

    return send_redacted


class NoAcknowledgements(bootsteps.StartStopStep):  # type: ignore[misc]
    """Acknowledges nothing, where no copy of a message is kept: each would be a turn of the event loop for nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Take the consumer's way to acknowledge from it."""
        parent.call_soon_ack = _nothing


def _nothing(*_: Any) -> None:
    """Do as if it had been acknowledged."""


class Engine(bootsteps.StartStopStep):  # type: ignore[misc]
    """Everything that a worker process has beside Celery's consumer: identity, heartbeat, dispatcher."""

    requires = ("celery.worker.components:Pool",)
    runtime_type: ClassVar[type[Runtime]] = Runtime
    turns: threading.Thread | None = None
    """The dispatcher's; None as long as the process is not ready."""

    def __init__(self, parent: Any, **options: Any) -> None:
        self.runtime: Runtime | None = None
        _or_end(check_options, parent)
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        """Make the process known and let it lead if nobody does."""
        _or_end(self._start, parent)

    def _start(self, parent: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        run_on_after_hangup()
        state.maybe_shutdown()  # Celery's own handler of these signals only takes note of them
        settings = load_settings()
        if PARENT_VARIABLE not in os.environ:  # else it was the parent's, once: what is wrong later opens the breaker
            check_authorities(settings.profiles)
            warn_of_short_secrets()
            refuse_unexpected_pooler(settings.database_url, settings.database_direct_url)
        check_safe(parent.app)
        rt = self.runtime = self.runtime_type(settings, revoked=lambda task_id: task_id in state.revoked)
        rt.name = f"{parent.hostname}:{os.getpid()}"  # what Flower and Celery's commands call it, and its process
        caps = {name: profile.max_in_flight for name, profile in settings.profiles.stores.items()}
        self.wakeup = Wakeup(settings.database_direct_url or settings.database_url)
        self.dispatcher = Dispatcher(
            db=rt.db,
            broker=Broker(parent.app),
            wakeup=self.wakeup,
            settings=settings,
            holder=rt.worker,
            store_caps=caps,
        )
        self.nudger = Nudger(rt.db, self.dispatcher, self.wakeup, taken=lambda: rt.taken)
        self.liveness = Liveness(
            rt,
            request_stop=lambda: os.kill(os.getpid(), signal.SIGTERM),
            resize=lambda slots: setattr(parent.pool, "slots", slots),
        )
        rt.nudge, rt.freed = self.nudger.nudge, self.nudger.freed
        self.liveness.register()
        yield_to_others(settings.worker_nice)  # not before: a start takes more of a processor than a slice does
        celery_tasks.serve(rt)
        self.turns = threading.Thread(target=self.dispatcher.run, name="dispatcher", daemon=True)
        for thread in (self.liveness, self.nudger, self.turns):
            thread.start()

    def _on_signal(self, *_: Any) -> None:
        """Stop at once: what is being sent stops at its next piece and is given back.

        Celery itself would wait for its threads, however long they take. What is not ready has nothing to give.
        """
        gc.freeze()  # else the interpreter searches everything once more at its end: 0.8 s of a processor
        state.should_stop = os.EX_OK
        rt = self.runtime
        if rt is None or self.turns is None:
            raise WorkerShutdown(os.EX_OK)
        if not rt.stopping.is_set():
            rt.stopping.set()
            stop_yielding(rt.settings.worker_nice)
            leave_if_database_is_away(rt.settings, EXIT_STUCK)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Give back what is held, stop leading, and say goodbye."""
        rt = self.runtime
        if rt is None or self.turns is None:
            return
        rt.stopping.set()
        drained = rt.drained(DRAIN_S)
        celery_tasks.serve(None)
        self.dispatcher.stop()
        self.turns.join(DRAIN_S)
        self.nudger.end()
        if not drained:
            self.liveness.leave()  # Celery would wait for the threads, however long the store takes to answer them
        self.liveness.end()

    terminate = stop


def check_options(parent: Any) -> None:
    """Refuse what `celery worker` was told and a worker of ours cannot do.

    Raises:
        SettingsError: another pool, autoscaling, or queues without ours; names the option.
    """
    if not issubclass(parent.pool_cls, TaskPool):
        name = parent.pool_cls.__module__.rpartition(".")[2]
        raise SettingsError(f"-P {name}: this pool is not served", advice="Leave -P out, or write -P threads.")
    if parent.autoscale:
        advice = "Leave it out; SLICEWAY_WORKER_THREADS says how many slices a process sends at once."
        raise SettingsError("--autoscale is not served: threads are made as they are needed", advice=advice)
    if QUEUE not in parent.app.amqp.queues.consume_from:
        raise SettingsError(f"-Q or -X leaves out the queue {QUEUE}, and there is no other", advice="Leave it out.")


def _or_end(step: Callable[[Any], None], parent: Any) -> None:
    """Take a step of the start; what is wrong with the settings ends the process with one line, for whoever starts it.

    Raises:
        SystemExit: something is wrong.
    """
    try:
        step(parent)
    except SlicewayError as error:
        log.error("worker.refused", error=error.message, advice=error.advice)  # noqa: TRY400 - nobody needs to know where
        raise SystemExit(os.EX_CONFIG) from None


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
