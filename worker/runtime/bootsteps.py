"""What a worker process starts beside Celery's own parts, and in which order it stops.

Written for Celery 5.7: the names of its boot steps, `Consumer.update_strategies`, `_flush_events` and
`call_soon_ack`, and the buffer of its `EventDispatcher`.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from celery import bootsteps, signals
from celery.concurrency import get_implementation
from celery.exceptions import WorkerShutdown
from celery.worker import state

from worker.broker.publisher import Broker, check_safe
from worker.config.authorities import check_authorities
from worker.config.celery_parts import STOCK_ADVICE, why_stock
from worker.config.credentials import warn_of_short_secrets
from worker.config.live_profiles import LiveCaps
from worker.config.settings import load_settings
from worker.db.upgrade import refuse_unexpected_pooler
from worker.dispatch.notifier import DispatcherNotifier
from worker.dispatch.wakeup import Wakeup
from worker.errors import SettingsError, SlicewayError
from worker.jobs.task_names import QUEUE
from worker.maintenance.bulk import BulkActions
from worker.runtime.cpu_priority import stop_yielding, yield_to_others
from worker.runtime.heartbeat import EXIT_STUCK, PARENT_VARIABLE, Liveness
from worker.runtime.leader import Leader
from worker.signals import force_exit_if_database_is_away, run_on_after_hangup
from worker.tasks import celery_tasks
from worker.tasks.context import Runtime
from worker.telemetry.log import get_logger
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.config.settings import Settings
    from worker.runtime.long_duties import Duty


log = get_logger(__name__)
FLUSH_EVENTS_EVERY_S = 0.2
MAX_BUFFERED_EVENTS = 500
"""More than come in that time; a message of so many is some 150 KiB."""
DRAIN_S = 4.0
"""How long a stop waits for what is being sent to come to its next piece."""


class RedactedEvents(bootsteps.StartStopStep):  # type: ignore[misc]
    """Names the queue in events of received tasks, and redacts the texts of errors in all events."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Redact from now on; each connection has a dispatcher of its own."""
        if parent.event_dispatcher is not None:
            parent.event_dispatcher.send = redacted(parent.event_dispatcher.send)
            parent.update_strategies()  # Celery's own keep the `send` that they find; nothing is received before


class EventBatches(bootsteps.StartStopStep):  # type: ignore[misc]
    """Sends the task events that Flower lives on a few times a second, not in every turn of the event loop."""

    requires = ("celery.worker.consumer.events:Events",)
    timer: Any = None

    def start(self, parent: Any) -> None:
        """Flush by the clock; the buffer flushes by itself when it is full."""
        if parent.hub is not None:
            parent.event_dispatcher.on_send_buffered = None
            parent.event_dispatcher.buffer_limit = MAX_BUFFERED_EVENTS
            self.timer = parent.hub.call_repeatedly(FLUSH_EVENTS_EVERY_S, parent._flush_events)  # noqa: SLF001

    def stop(self, parent: Any) -> None:
        """Send what is left; a connection that was lost takes its events along."""
        if self.timer is not None:  # a consumer that lost its broker while it started is stopped all the same
            self.timer.cancel()
            parent._flush_events()  # noqa: SLF001


def redacted(send: Callable[..., Any]) -> Callable[..., Any]:
    """Return what sends events as ``send`` does: with the queue's name, without the secrets in the texts of errors."""

    def send_redacted(type: str, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        if type == "task-received":  # monitors learn the queue from here; Celery itself names it in `task-sent` only
            fields["queue"] = QUEUE
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
    """Everything that a worker process has beside Celery's consumer: identity, heartbeat, leader."""

    requires = ("celery.worker.components:Pool",)
    runtime_type: ClassVar[type[Runtime]] = Runtime
    long_duties: ClassVar[Sequence[Callable[[Settings], Duty]]] = (BulkActions,)
    """Make the leader's; their thread's connection is counted in `docs/operating.md` and by the doctor."""
    leader_thread: threading.Thread | None = None
    """The leader's; None as long as the process is not ready."""
    asked_to_reload = False
    asked_to_stop = False
    """Set before the event `stopping`: a signal that interrupts the setting of an event must not set it too, for
    an event has a lock that its thread cannot take twice."""

    def __init__(self, parent: Any, **options: Any) -> None:
        self.runtime: Runtime | None = None
        _or_end(check_options, parent)
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        """Make the process known and let it lead if no other process does."""
        _or_end(self._start, parent)

    def _start(self, parent: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        run_on_after_hangup(self._on_hangup)
        state.maybe_shutdown()  # Celery's own handler of these signals only takes note of them
        settings = load_settings()
        if PARENT_VARIABLE not in os.environ:  # else it was the parent's, once: what is wrong later opens the breaker
            check_authorities(settings.profiles)
            warn_of_short_secrets()
            refuse_unexpected_pooler(settings.database_url, settings.database_direct_url)
        check_safe(parent.app)
        if stock := why_stock(settings):
            log.info("worker.stock_celery", why=stock, advice=STOCK_ADVICE)
        rt = self.runtime = self.runtime_type(settings, revoked=lambda task_id: task_id in state.revoked)
        rt.name = f"{parent.hostname}:{os.getpid()}"  # what Flower and Celery's commands call it, and its process
        self.wakeup = Wakeup(settings.database_direct_url or settings.database_url)
        self.leader = Leader(
            db=rt.db,
            broker=Broker(parent.app, has_templates=stock is None),
            wakeup=self.wakeup,
            settings=settings,
            holder=rt.worker,
            store_caps=LiveCaps(settings.live_profiles),
            duties=[make(settings) for make in self.long_duties],
        )
        self.notifier = DispatcherNotifier(
            rt.db, self.wakeup, leads=lambda: self.leader.leads, taken=lambda: rt.guards.taken
        )
        self.liveness = Liveness(
            rt,
            request_stop=lambda: os.kill(os.getpid(), signal.SIGTERM),
            resize=lambda slots: setattr(parent.pool, "slots", slots),
        )
        rt.notify_dispatcher, rt.slot_freed = self.notifier.notify_dispatcher, self.notifier.slot_freed
        self.liveness.register()
        yield_to_others(settings.worker_nice)  # not before: a start takes more of a processor than a slice does
        celery_tasks.serve(rt)
        signals.worker_process_init.send(sender=parent.hostname)  # no pool of threads sends it
        self.leader_thread = threading.Thread(target=self.leader.run, name="leader", daemon=True)
        for thread in (self.liveness, self.notifier, self.leader_thread):
            thread.start()
        if self.asked_to_reload:
            self.liveness.stores.ask()

    def _on_hangup(self) -> None:
        """Have the stores file read again, as soon as the process is ready."""
        self.asked_to_reload = True
        if self.leader_thread is not None:
            self.liveness.stores.ask()

    def _on_signal(self, *_: Any) -> None:
        """Stop at once: what is being sent stops at its next piece and is given back.

        Celery itself would wait for its threads, however long they take. What is not ready has nothing to give.
        """
        gc.freeze()  # else the interpreter searches everything once more at its end: 0.8 s of a processor
        state.should_stop = os.EX_OK
        rt = self.runtime
        if rt is None or self.leader_thread is None:
            raise WorkerShutdown(os.EX_OK)
        if not self.asked_to_stop:
            self.asked_to_stop = True
            rt.stopping.set()
            stop_yielding(rt.settings.worker_nice)
            force_exit_if_database_is_away(rt.settings, EXIT_STUCK)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Give back what is held, stop leading, and say goodbye."""
        rt = self.runtime
        if rt is None or self.leader_thread is None:
            return
        self.asked_to_stop = True
        rt.stopping.set()
        drained = rt.guards.drained(DRAIN_S)
        celery_tasks.serve(None)
        self.leader.stop()
        self.leader_thread.join(DRAIN_S)
        self.notifier.end()
        if not drained:
            self.liveness.leave()  # Celery would wait for the threads, however long the store takes to answer them
        self.liveness.end()

    terminate = stop


def check_options(parent: Any) -> None:
    """Refuse the options of `celery worker` that a worker of ours cannot serve.

    Raises:
        SettingsError: another pool, autoscaling, or queues without ours; names the option.
    """
    if parent.pool_cls is not get_implementation(parent.app.conf.worker_pool):
        name = parent.pool_cls.__module__.rpartition(".")[2]
        raise SettingsError(f"-P {name}: this pool is not served", advice="Leave -P out, or write -P threads.")
    if parent.autoscale:
        advice = "Leave it out; SLICEWAY_WORKER_THREADS says how many slices a process sends at once."
        raise SettingsError("--autoscale is not served: threads are made as they are needed", advice=advice)
    if QUEUE not in parent.app.amqp.queues.consume_from:
        raise SettingsError(f"-Q or -X leaves out the queue {QUEUE}, and there is no other", advice="Leave it out.")


def _or_end(step: Callable[[Any], None], parent: Any) -> None:
    """Take a step of the start; a fault of the settings ends the process with one line.

    Raises:
        SystemExit: something is wrong.
    """
    try:
        step(parent)
    except SlicewayError as error:
        log.error("worker.refused", error=error.message, advice=error.advice)  # noqa: TRY400 - a traceback says no more
        raise SystemExit(os.EX_CONFIG) from None
