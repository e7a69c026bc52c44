"""Our task strategy compared with Celery's own: the same events and the same state."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, current_app, current_task, signals
from celery.app import trace
from celery.concurrency.solo import TaskPool as Solo
from celery.events.event import Event
from celery.events.state import State
from celery.exceptions import Ignore, Retry
from celery.worker import state
from celery.worker.strategy import default
from kombu.message import Message

from worker.errors import SlicewayError
from worker.runtime.task_strategy import Delivery, strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ID = "0a6d5f3e-6c0b-5a39-8a1c-6f1a2b3c4d5e"
WAYS = pytest.mark.parametrize("deliver_by", [default, strategy], ids=["celerys", "ours"])


class Refused(SlicewayError):
    """A failure that our tasks end with."""


class Eventer:
    """Keeps the events; `monitor` is the state that a monitor derives from them."""

    enabled = True

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.monitor = State()

    def send(self, kind: str, **fields: Any) -> None:
        """Take an event as Celery's dispatcher does."""
        clock = len(self.sent) + 1
        self.sent.append(Event(kind, hostname="w@h", utcoffset=0, pid=1, clock=clock, **fields))
        self.monitor.event({**self.sent[-1], "local_received": self.sent[-1]["timestamp"]})

    def kinds(self) -> list[str]:
        """Return the kinds of the events, in order."""
        return [event["type"] for event in self.sent]

    def task(self) -> dict[str, Any]:
        """Return the task in the monitor's state, without the values that differ each time."""
        task = self.monitor.tasks[ID].as_dict()
        ever_new = {name for name, value in task.items() if isinstance(value, float)} | {"traceback"}
        return {name: value for name, value in task.items() if name not in ever_new}

    def raised_at(self) -> str:
        """Return the end of the traceback: the line that raised, and the exception."""
        traceback = self.sent[-1].get("traceback", "")
        return "\n".join(traceback.splitlines()[-3:])


class Inline(Solo):  # type: ignore[misc]
    """A pool that runs a task in the calling thread."""

    def submit(self, work: Callable[[], None]) -> None:
        """Run it."""
        work()


class Parts(SimpleNamespace):
    """What a signal may have as its sender."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Harness:
    """A consumer with one task."""

    def __init__(self, body: Callable[[Task], Any]) -> None:
        app = Celery("test", broker="memory://", set_as_current=True)
        self.eventer, pool = Eventer(), Inline(app=app)
        self.acks = 0
        self.active: list[Any] = []

        def run(task: Task, **_: Any) -> Any:
            self.active = [request.info() for request in state.active_requests]
            return body(task)

        self.task = app.task(run, bind=True, name="one", ignore_result=True, shared=False)
        self.consumer = Parts(
            hostname="w@h", connection_errors=(), event_dispatcher=self.eventer, pool=pool, task_buckets={"one": None},
            timer=SimpleNamespace(call_at=None), apply_eta_task=None, disable_rate_limits=False, _limit_post_eta=None,
            on_task_request=lambda request: request.execute_using_pool(pool), _limit_task=self._limit,
            controller=SimpleNamespace(state=state), qos=SimpleNamespace(increment_eventually=lambda: None),
        )  # fmt: skip
        self.limited: list[Any] = []
        self.app = app

    def _limit(self, request: Any, *_: Any) -> None:
        self.limited.append(request)

    def deliver(self, deliver_by: Any, body: bytes | None = None, **headers: Any) -> None:
        """Deliver a message by this strategy."""
        made = self.app.amqp.as_task_v2(
            ID, "one", args=(), kwargs={"job": "j", "number": 3}, argsrepr="job=j slice 4/9", kwargsrepr="{}"
        )
        message = Message(
            body=body if body is not None else json.dumps(made.body).encode(),
            content_type="application/json", content_encoding="utf-8", accept={"application/json"},
            headers={**made.headers, **headers}, properties=made.properties, delivery_info={},
        )  # fmt: skip
        task = self.app.tasks["one"]
        task.__trace__ = trace.build_tracer("one", task, app=self.app)  # as Celery's consumer does before
        receive = deliver_by(task, self.app, self.consumer)
        receive(message, None, self._acknowledge, self._acknowledge, set())

    def _acknowledge(self, *_: Any) -> None:
        self.acks += 1


@pytest.fixture(autouse=True)
def restored_state() -> Iterator[None]:
    """Restore Celery's state of this process, and its current app."""
    before = current_app._get_current_object()
    yield
    before.set_current()
    state.reset_state()


def fails(error: Exception) -> Callable[[Task], None]:
    def body(_: Task) -> None:
        raise error

    return body


def retries(_: Task) -> None:
    """Fail as a slice does that is retried."""
    raise Retry("not now") from Refused("not now")


ENDS = {
    "success": (lambda _: None, ["task-received", "task-started", "task-succeeded"], "SUCCESS"),
    "retry": (retries, ["task-received", "task-started", "task-retried"], "RETRY"),
    "failure": (fails(Refused("no", code="no")), ["task-received", "task-started", "task-failed"], "FAILURE"),
    "fault": (fails(ZeroDivisionError("ours")), ["task-received", "task-started", "task-failed"], "FAILURE"),
    "ignored": (fails(Ignore()), ["task-received", "task-started"], "STARTED"),
}


@pytest.mark.parametrize(("body", "kinds", "final"), ENDS.values(), ids=ENDS)
def test_each_end_of_a_task_sends_celerys_events(body: Any, kinds: list[str], final: str) -> None:
    results = {}
    for deliver_by in (default, strategy):
        harness = Harness(body)
        harness.deliver(deliver_by)
        assert harness.eventer.kinds() == kinds
        assert harness.eventer.task()["state"] == final
        assert harness.acks == 1
        assert not state.requests
        assert not state.reserved_requests
        assert not state.active_requests
        results[deliver_by] = harness.eventer.task(), harness.eventer.raised_at()
    seen, where = results[strategy]
    assert (seen.pop("kwargs"), results[default][0].pop("kwargs")) == (None, "{}"), "no arguments, given or not"
    assert results[strategy] == results[default]
    assert seen["args"] == "job=j slice 4/9"
    assert (seen["exception"] is None) == (where == "")
    assert (harness.eventer.sent[-1].get("runtime", -1.0) >= 0.0) == (final == "SUCCESS")


@WAYS
def test_a_revoked_task_is_reported_as_revoked_and_not_run(deliver_by: Any) -> None:
    harness = Harness(fails(AssertionError("was run")))
    state.revoked.add(ID)
    harness.deliver(deliver_by)
    assert harness.eventer.kinds() == ["task-revoked"]
    assert harness.eventer.task()["state"] == "REVOKED"
    assert harness.acks == 1
    assert not state.requests


@WAYS
def test_a_body_knows_its_task_and_an_operator_sees_it(deliver_by: Any) -> None:
    ids: list[str] = []
    harness = Harness(lambda task: ids.append(task.request.id))
    harness.deliver(deliver_by)
    assert ids == [ID]
    [active] = harness.active
    assert (active["id"], active["kwargs"]) == (ID, {"job": "j", "number": 3})
    assert active["time_start"]
    assert state.total_count == {"one": 1}
    assert harness.app.tasks["one"].request.id is None, "the thread's next task is another"


@pytest.mark.parametrize("headers", [{"eta": "2999-01-01T00:00:00+00:00"}, {"expires": "2000-01-01T00:00:00+00:00"}])
def test_a_message_with_more_to_it_goes_celerys_own_way(headers: dict[str, Any]) -> None:
    events = []
    for deliver_by in (default, strategy):
        harness = Harness(lambda _: None)
        harness.consumer.timer.call_at = lambda *_, **__: None
        harness.deliver(deliver_by, **headers)
        events.append(harness.eventer.kinds())
        state.reset_state()
    assert events[0] == events[1]
    assert events[0] in (["task-received"], ["task-revoked"])


def test_a_task_that_was_limited_in_rate_waits_for_celerys_bucket() -> None:
    harness = Harness(fails(AssertionError("was run")))
    harness.consumer.task_buckets["one"] = object()
    harness.deliver(strategy)
    assert [request.id for request in harness.limited] == [ID]
    assert not isinstance(harness.limited[0], Delivery)


@pytest.mark.parametrize("body", [b"{", b"[]", b"7"])
def test_what_is_no_message_is_refused_as_by_celery(body: bytes) -> None:
    refusals = []
    for deliver_by in (default, strategy):
        harness = Harness(fails(AssertionError("was run")))
        with pytest.raises(Exception) as refused:  # noqa: PT011 - which one is Celery's
            harness.deliver(deliver_by, body)
        refusals.append(refused.type)
    assert refusals[0] is refusals[1]


SIGNALS = (
    *("task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"),
    *("task_internal_error", "task_revoked"),
)


def listened(body: Callable[[Task], Any], deliver_by: Any, names: Iterable[str]) -> list[tuple[str, bool]]:
    """Return which of these signals a message sends, in order, and whether each named our task."""
    sent: list[tuple[str, bool]] = []

    def receiver(name: str, sender: Any, request: Any = None, task_id: str | None = None, **_: Any) -> None:
        sent.append((name, (task_id or (request or sender.request).id) == ID))

    receivers = {name: functools.partial(receiver, name) for name in names}
    for name, each in receivers.items():
        getattr(signals, name).connect(each, weak=False)
    try:
        Harness(body).deliver(deliver_by)
    finally:
        for name, each in receivers.items():
            getattr(signals, name).disconnect(each)
    return sent


@pytest.mark.parametrize(("body", "end"), [(body, end) for body, _, end in ENDS.values()], ids=ENDS)
def test_whoever_listens_gets_celerys_signals(body: Any, end: str) -> None:
    sent = {deliver_by: listened(body, deliver_by, SIGNALS) for deliver_by in (default, strategy)}
    assert sent[strategy] == sent[default]
    assert all(named for _, named in sent[strategy])
    of_end = {"SUCCESS": "task_success", "RETRY": "task_retry", "FAILURE": "task_failure"}
    assert {name for name, _ in sent[strategy]} == {"task_received", "task_prerun", "task_postrun"} | (
        {of_end[end]} if end in of_end else set()
    )


@pytest.mark.parametrize("name", [name for name in SIGNALS if name not in {"task_internal_error", "task_revoked"}])
def test_one_receiver_of_one_signal_is_enough(name: str) -> None:
    body = {"task_failure": fails(Refused("no")), "task_retry": retries}.get(name, lambda _: None)
    assert listened(body, strategy, [name]) == [(name, True)]


@WAYS
def test_a_revoke_sends_its_signal(deliver_by: Any) -> None:
    state.revoked.add(ID)
    assert listened(fails(AssertionError("was run")), deliver_by, ["task_revoked"]) == [("task_revoked", True)]


class Proxy:
    """A wrapper that shows everything of what it wraps, as those of wrapt do."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __call__(self, *args: Any, **options: Any) -> Any:
        return traced(self._wrapped, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


runs: list[str] = []


def traced(build: Any, name: str, task: Task, **options: Any) -> Any:
    """Build a tracer that notes its runs."""
    tracer = build(name, task, **options)
    return lambda uuid, *args, **kwargs: (runs.append(uuid), tracer(uuid, *args, **kwargs))[1]


@pytest.mark.parametrize(
    "wrap",
    [Proxy, lambda build: functools.wraps(build)(lambda *args, **options: traced(build, *args, **options))],
    ids=["proxy", "function"],
)
def test_a_tracer_that_is_not_celerys_runs_each_task(monkeypatch: pytest.MonkeyPatch, wrap: Any) -> None:
    """Sentry replaces `build_tracer` by a function, others by a proxy."""
    runs.clear()
    Harness(lambda _: None).deliver(strategy)
    assert runs == []
    monkeypatch.setattr(trace, "build_tracer", wrap(trace.build_tracer))
    Harness(lambda _: None).deliver(strategy)
    assert runs == [ID]


@WAYS
def test_the_current_task_is_the_one_that_runs(deliver_by: Any) -> None:
    seen: list[Any] = []
    Harness(lambda _: seen.append((current_task.name, current_task.request.id))).deliver(deliver_by)
    assert seen == [("one", ID)]
    assert not current_task


ASKED = "from worker.celery import app; from worker.jobs.task_names import TaskName; "
ASKED += "print({app.tasks[name].Strategy for name in TaskName}, app.conf.worker_pool, app.conf.task_queues[0].no_ack)"


@pytest.mark.parametrize(
    ("celery", "said"),
    [
        ("auto", "{'worker.runtime.task_strategy:strategy'} worker.runtime.task_pool:TaskPool True"),
        ("stock", "{'celery.worker.strategy:default'} threads False"),
    ],
)
def test_our_tasks_go_this_way_unless_the_stock_parts_are_wanted(celery: str, said: str) -> None:
    given = {"DATABASE_URL": "postgresql://127.0.0.1:1/none", "BROKER_URL": "redis://127.0.0.1:1/0", "CELERY": celery}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
    environ |= {f"SLICEWAY_{name}": value for name, value in given.items()}
    done = subprocess.run([sys.executable, "-c", ASKED], env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (said, "")
