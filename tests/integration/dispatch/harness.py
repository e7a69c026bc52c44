"""A leader with a real broker and a real database, and no worker but the test itself."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from celery import Celery

from worker.broker.publisher import Broker
from worker.config.settings import Settings
from worker.db.pool import Database
from worker.dispatch.wakeup import Wakeup
from worker.jobs.leases import Claim
from worker.jobs.task_names import QUEUE
from worker.runtime.leader import Leader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import redis

    from tests.integration.jobs.database import JobsDatabase
    from worker.runtime.long_duties import Duty

SOON_S = 120.0
"""A deadline for what takes milliseconds on a machine that is not busy."""


def eventually(found: Callable[[], Any], failure: str) -> Any:
    """Return the value of `found` as soon as it is true; fail at the deadline."""
    until = time.monotonic() + SOON_S
    while not (value := found()):
        assert time.monotonic() < until, failure
        threading.Event().wait(0.01)
    return value


@dataclass(frozen=True)
class Message:
    """A task message as a worker gets it."""

    task_id: str
    name: str
    argsrepr: str
    job: UUID
    number: int | None
    token: int
    epoch: int
    alone: bool

    @property
    def unit(self) -> tuple[UUID, int | None]:
        """The job and the slice's number; None for a step."""
        return self.job, self.number

    def claim(self, worker: UUID) -> Claim:
        """Return the claim that it leads to."""
        return Claim(self.job, self.number, self.token, self.epoch, worker)


def read_message(raw: bytes | str) -> Message:
    """Decode a message of the queue."""
    envelope = json.loads(raw)
    args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
    assert args == []
    headers = envelope["headers"]
    return Message(
        headers["id"], headers["task"], headers["argsrepr"], UUID(kwargs["job"]), kwargs.get("number"),
        kwargs["token"], kwargs["epoch"], kwargs.get("alone", False),
    )  # fmt: skip


@dataclass
class Running:
    """A leader in a thread of its own."""

    leader: Leader
    db: Database
    holder: UUID
    thread: threading.Thread

    def stop(self) -> None:
        """End it, as a worker process does when it stops."""
        self.leader.stop()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()
        self.db.close()


@dataclass
class DispatcherHarness:
    """Starts leaders on one database and broker, and reads the messages that they publish."""

    db: JobsDatabase
    url: str
    broker_url: str
    queue: redis.Redis
    running: list[Running] = field(default_factory=list)

    def settings(self, **values: Any) -> Settings:
        """Return settings with short times."""
        short = {"lead_s": 0.6, "dead_after_s": 1.0, "heartbeat_s": 0.2}
        return Settings.model_validate({"database_url": self.url, "broker_url": self.broker_url} | short | values)

    def start(
        self,
        *,
        caps: Mapping[str, int] | None = None,
        broker: type[Broker] = Broker,
        listens_at: str | None = None,
        duties: Sequence[Duty] = (),
        **settings: Any,
    ) -> Running:
        """Start a leader; it waits while another one leads."""
        app = Celery("dispatcher", broker=self.broker_url, set_as_current=False)
        app.conf.update(
            task_default_queue=QUEUE,
            task_serializer="json",
            broker_connection_timeout=2,
            broker_transport_options={"socket_timeout": 5, "socket_connect_timeout": 2},
        )
        db, holder = Database(self.url, application="dispatcher"), uuid4()
        leader = Leader(
            db=db, broker=broker(app), wakeup=Wakeup(listens_at or self.url), settings=self.settings(**settings),
            holder=holder, store_caps=caps or {}, duties=duties,
        )  # fmt: skip
        thread = threading.Thread(target=leader.run, daemon=True)
        thread.start()
        self.running.append(Running(leader, db, holder, thread))
        return self.running[-1]

    def leading(self, **settings: Any) -> Running:
        """Start a leader and wait until it leads."""
        made = self.start(**settings)
        eventually(lambda: made.leader.leads, "none leads")
        return made

    def messages(self) -> list[Message]:
        """Return the messages in the queue, oldest first, and leave them there."""
        return [read_message(raw) for raw in reversed(self.queue.lrange(QUEUE, 0, -1))]

    def units(self) -> list[tuple[UUID, int | None]]:
        """Return the steps and slices of the messages in the queue."""
        return [message.unit for message in self.messages()]

    def take(self) -> Message:
        """Take the oldest message, as a worker does."""
        return read_message(eventually(lambda: self.queue.rpop(QUEUE), "no message came"))

    def wait_for(self, count: int) -> list[Message]:
        """Wait until so many messages are in the queue."""
        found: list[Message] = eventually(
            lambda: len(waiting := self.messages()) == count and (waiting or True), f"{count} messages do not come"
        )
        return found if isinstance(found, list) else []

    def a_few_ticks(self) -> None:
        """Wait until the leader has run ticks that began after now, so that all that is due now is dispatched."""
        for _ in range(3):
            marker = self.db.enqueue(tenant=f"marker {uuid4()}", priority=0)
            self.db.run("UPDATE job SET not_before = now() WHERE id = %s", marker)
            self.db.run("NOTIFY sliceway_work")
            eventually(lambda m=marker: self._was_seen(m), "the leader runs no tick")  # type: ignore[misc]
            self.db.run("UPDATE job SET paused_at = now() WHERE id = %s AND step = 'pending'", marker)

    def _was_seen(self, marker: UUID) -> bool:
        """Whether a tick made the marker due, or dispatched it before it had a time."""
        row = self.db.row(marker)
        return row["not_before"] is None or row["step"] != "pending"

    def stop(self) -> None:
        """Stop every leader."""
        for running in self.running:
            if running.thread.is_alive():
                running.stop()
