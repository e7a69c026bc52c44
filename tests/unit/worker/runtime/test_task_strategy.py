"""Our way of a message through a worker against Celery's own: the same events, the same books."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, current_app
from celery.concurrency.solo import TaskPool as Solo
from celery.events.event import Event
from celery.events.state import State
from celery.exceptions import Ignore, Retry
from celery.worker import state
from celery.worker.strategy import default
from kombu.message import Message

from worker.errors import SlicewayError
from worker.runtime.task_strategy import Delivery, strategy
from worker.tasks.celery_tasks import slice_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID = "0a6d5f3e-6c0b-5a39-8a1c-6f1a2b3c4d5e"
WAYS = pytest.mark.parametrize("way", [default, strategy], ids=["celerys", "ours"])


class Refused(SlicewayError):
    """A failure that our tasks end with."""


class Eventer:
    """Keeps the events; what a monitor makes of them is in `seen`."""

    enabled = True

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.seen = State()

    def send(self, kind: str, **fields: Any) -> None:
        """Take an event as Celery's dispatcher does."""
        clock = len(self.sent) + 1
        self.sent.append(Event(kind, hostname="w@h", utcoffset=0, pid=1, clock=clock, **fields))
        self.seen.event({**self.sent[-1], "local_received": self.sent[-1]["timestamp"]})

    def kinds(self) -> list[str]:
        """What was told, in order."""
        return [event["type"] for event in self.sent]

    def shown(self) -> dict[str, Any]:
        """The task as a monitor shows it, without what is another every time."""
        shown = self.seen.tasks[ID].as_dict()
        ever_new = {name for name, value in shown.items() if isinstance(value, float)} | {"traceback"}
        return {name: value for name, value in shown.items() if name not in ever_new}

    def where_it_ended(self) -> str:
        """The end of the traceback that was told: the line of the body that raised, and what."""
        told = self.sent[-1].get("traceback", "")
        return "\n".join(told.splitlines()[-3:])


class Inline(Solo):  # type: ignore[misc]
    """A pool that runs a task where it is handed over."""

    def submit(self, work: Callable[[], None]) -> None:
        """Run it."""
        work()


class Bench:
    """A consumer with one task."""

    def __init__(self, body: Callable[[Task], Any]) -> None:
        app = Celery("test", broker="memory://", set_as_current=True)
        self.eventer, pool = Eventer(), Inline(app=app)
        self.acks = 0
        self.active: list[Any] = []

        def run(task: Task, **_: Any) -> Any:
            self.active = [request.info() for request in state.active_requests]
            return body(task)

        self.task = app.task(run, bind=True, name="one", ignore_result=True, throws=(SlicewayError,), shared=False)
        self.consumer = SimpleNamespace(
            hostname="w@h", connection_errors=(), event_dispatcher=self.eventer, pool=pool, task_buckets={"one": None},
            timer=SimpleNamespace(call_at=None), apply_eta_task=None, disable_rate_limits=False, _limit_post_eta=None,
            on_task_request=lambda request: request.execute_using_pool(pool), _limit_task=self._limit,
            controller=SimpleNamespace(state=state), qos=SimpleNamespace(increment_eventually=lambda: None),
        )  # fmt: skip
        self.limited: list[Any] = []
        self.app = app

    def _limit(self, request: Any, *_: Any) -> None:
        self.limited.append(request)

    def deliver(self, way: Any, body: bytes | None = None, **headers: Any) -> None:
        """Have a message go this way."""
        made = self.app.amqp.as_task_v2(
            ID, "one", args=(), kwargs={"job": "j", "number": 3}, argsrepr="job=j slice 4/9", kwargsrepr="{}"
        )
        message = Message(
            body=body if body is not None else json.dumps(made.body).encode(),
            content_type="application/json", content_encoding="utf-8", accept={"application/json"},
            headers={**made.headers, **headers}, properties=made.properties, delivery_info={},
        )  # fmt: skip
        receive = way(self.app.tasks["one"], self.app, self.consumer)
        receive(message, None, self._acknowledge, self._acknowledge, set())

    def _acknowledge(self, *_: Any) -> None:
        self.acks += 1


@pytest.fixture(autouse=True)
def books() -> Iterator[None]:
    """Celery's books of this process, and which app is the current one, as they were."""
    before = current_app._get_current_object()
    yield
    before.set_current()
    state.reset_state()


def fails(error: Exception) -> Callable[[Task], None]:
    def body(_: Task) -> None:
        raise error

    return body


def retries(_: Task) -> None:
    """Fail as a slice does that will be tried again."""
    raise Retry("not now") from Refused("not now")


ENDS = {
    "success": (lambda _: None, ["task-received", "task-started", "task-succeeded"], "SUCCESS"),
    "retry": (retries, ["task-received", "task-started", "task-retried"], "RETRY"),
    "failure": (fails(Refused("no", code="no")), ["task-received", "task-started", "task-failed"], "FAILURE"),
    "fault": (fails(ZeroDivisionError("ours")), ["task-received", "task-started", "task-failed"], "FAILURE"),
    "ignored": (fails(Ignore()), ["task-received", "task-started"], "STARTED"),
}


@pytest.mark.parametrize(("body", "kinds", "shown"), ENDS.values(), ids=ENDS)
def test_each_end_of_a_task_is_told_as_celery_tells_it(body: Any, kinds: list[str], shown: str) -> None:
    told = {}
    for way in (default, strategy):
        bench = Bench(body)
        bench.deliver(way)
        assert bench.eventer.kinds() == kinds
        assert bench.eventer.shown()["state"] == shown
        assert bench.acks == 1
        assert not state.requests
        assert not state.reserved_requests
        assert not state.active_requests
        told[way] = bench.eventer.shown(), bench.eventer.where_it_ended()
    seen, where = told[strategy]
    assert (seen.pop("kwargs"), told[default][0].pop("kwargs")) == (None, "{}"), "nothing in it, told or not"
    assert told[strategy] == told[default]
    assert seen["args"] == "job=j slice 4/9"
    assert (seen["exception"] is None) == (where == "")
    assert (bench.eventer.sent[-1].get("runtime", -1.0) >= 0.0) == (shown == "SUCCESS")


@WAYS
def test_a_revoked_task_is_told_as_revoked_and_not_run(way: Any) -> None:
    bench = Bench(fails(AssertionError("was run")))
    state.revoked.add(ID)
    bench.deliver(way)
    assert bench.eventer.kinds() == ["task-revoked"]
    assert bench.eventer.shown()["state"] == "REVOKED"
    assert bench.acks == 1
    assert not state.requests


@WAYS
def test_a_body_knows_its_task_and_an_operator_sees_it(way: Any) -> None:
    ids: list[str] = []
    bench = Bench(lambda task: ids.append(task.request.id))
    bench.deliver(way)
    assert ids == [ID]
    [active] = bench.active
    assert (active["id"], active["kwargs"]) == (ID, {"job": "j", "number": 3})
    assert active["time_start"]
    assert state.total_count == {"one": 1}
    assert bench.app.tasks["one"].request.id is None, "the thread's next task is another"


@pytest.mark.parametrize("headers", [{"eta": "2999-01-01T00:00:00+00:00"}, {"expires": "2000-01-01T00:00:00+00:00"}])
def test_a_message_with_more_to_it_goes_celerys_own_way(headers: dict[str, Any]) -> None:
    told = []
    for way in (default, strategy):
        bench = Bench(lambda _: None)
        bench.consumer.timer.call_at = lambda *_, **__: None
        bench.deliver(way, **headers)
        told.append(bench.eventer.kinds())
        state.reset_state()
    assert told[0] == told[1]
    assert told[0] in (["task-received"], ["task-revoked"])


def test_a_task_that_was_limited_in_rate_waits_for_celerys_bucket() -> None:
    bench = Bench(fails(AssertionError("was run")))
    bench.consumer.task_buckets["one"] = object()
    bench.deliver(strategy)
    assert [request.id for request in bench.limited] == [ID]
    assert not isinstance(bench.limited[0], Delivery)


@pytest.mark.parametrize("body", [b"{", b"[]", b"7"])
def test_what_is_no_message_is_refused_as_by_celery(body: bytes) -> None:
    refusals = []
    for way in (default, strategy):
        bench = Bench(fails(AssertionError("was run")))
        with pytest.raises(Exception) as refused:  # noqa: PT011 - which one is Celery's
            bench.deliver(way, body)
        refusals.append(refused.type)
    assert refusals[0] is refusals[1]


def test_our_tasks_go_this_way() -> None:
    assert slice_task.Strategy == f"{strategy.__module__}:{strategy.__name__}"
