"""`points` finds every crash point and names it after the code; a rewritten module behaves as before."""

from __future__ import annotations

import ast
import inspect
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import points
from tests.faults.crash_injector import HALF, CrashInjector
from tests.faults.points import CROSSING, ENDING, SENDING, AmbiguousCall, Calls
from worker.jobs import breakers, bulk, caps, control, due, holds, leadership, leases, store_links, transitions, workers

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED = Calls(
    statements=frozenset({"worker.jobs.transitions.succeed", "worker.jobs.leadership.lead"}),
    store={"finish": False, "put_slice": True},
    broker=frozenset({"publish"}),
)
PLANTED = """
from worker.jobs import transitions
from worker.jobs.leadership import lead

class Work:
    def done(self, rt, claim, guard):
        rt.write(lambda tx: transitions.succeed(tx, claim, result=len("four")), guard)
        with rt.db.transaction() as tx:
            return lead(tx)

    def send(self, body, guard):
        self.store.put_slice("key", body, guard)
        self.store.put_slice("key", body, guard)
        return self.store.finish("key", guard=guard)

def announce(self, rows):
    self._broker.publish(rows)
    self.producer.publish(rows)   # not our broker
    self.finish(rows)             # no request: it has no guard
    return transitions.read_only(rows)
"""
READERS = {
    *("due.snapshot", "due.due_steps", "due.due_slices"),
    *("holds.list_holds", "holds.is_tenant", "caps.list_caps"),
    *("bulk.find", "bulk.list_actions", "bulk.running"),
    *("leases.lost_claims", "leases.claim_history", "store_links.reported_links", "leases.adopted_by_size"),
}


class PointRecorder(CrashInjector):
    """Records the points that are passed, and kills no process."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.passed: list[str] = []

    def reach(self, point: str) -> None:
        self.passed.append(point)


def test_planted_edges_are_found_and_named_after_the_code() -> None:
    found = [edge.name for edge in points.find("worker.tasks.planted", ast.parse(PLANTED), WANTED).values()]
    assert sorted(found) == [
        "tasks.planted.Work.done:commit",
        "tasks.planted.Work.done:lead",
        "tasks.planted.Work.done:succeed",
        "tasks.planted.Work.send:finish",
        "tasks.planted.Work.send:put_slice",
        "tasks.planted.Work.send:put_slice.2",
        "tasks.planted.announce:publish",
    ]


def test_an_edge_has_a_point_on_each_side_and_one_in_the_middle_of_a_body() -> None:
    assert points.Edge("a:b").points == ("a:b:before", "a:b:after")
    assert points.Edge("a:b", streams=True).points == ("a:b:before", "a:b:middle", "a:b:after")


@pytest.mark.parametrize("use", ["run(transitions.succeed)", "partial(transitions.succeed, tx)", "done = lead"])
def test_a_statement_that_is_passed_on_is_refused(use: str) -> None:
    source = f"from worker.jobs import transitions\nfrom worker.jobs.leadership import lead\n{use}\n"
    with pytest.raises(AmbiguousCall, match=r"worker\.tasks\.planted:3"):
        points.find("worker.tasks.planted", ast.parse(source), WANTED)


def test_every_statement_that_writes_is_an_edge() -> None:
    public = {
        f"{module.__name__}.{name}"
        for module in (transitions, control, leases, store_links, workers, leadership, breakers, due, holds, caps, bulk)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        if next(iter(inspect.signature(function).parameters), "") == "tx"
    }
    counted = {name for name in points.calls().statements if "submit" not in name and "commands" not in name}
    assert public - counted == {f"worker.jobs.{name}" for name in READERS}
    assert counted <= public
    written = {"worker.jobs.submit.submit", "worker.jobs.commands.cancel", "worker.jobs.commands.retry"}
    assert written <= points.calls().statements


def test_a_writer_is_known_by_its_statements() -> None:
    source = """
def reads(tx): return tx.execute("SELECT 1 FROM job FOR NO KEY UPDATE")
def documented(tx): "Contains INSERT INTO, and executes nothing."
def by_file(tx): return _one(tx, "succeed", {})
def inline(tx): tx.execute("UPDATE leadership SET until = now()")
def notifies(tx): tx.execute(f"NOTIFY {CHANNEL}")
def through(tx): transitions.succeed(tx)
def without(connection): connection.execute("DELETE FROM job")
def _private(tx): tx.execute("DELETE FROM job")
"""
    tree = ast.parse("from worker.jobs import transitions" + source)
    writers = points.committing("m", tree, {"worker.jobs.transitions.succeed"})
    assert writers == {"m.by_file", "m.inline", "m.notifies", "m.through"}


def test_no_module_that_writes_or_publishes_is_left_out() -> None:
    writers = Calls(points.calls().statements, {}, points.calls().broker)
    found = {
        edge.name
        for file in [*(points.HOME / "api").rglob("*.py"), *(points.HOME / "worker").rglob("*.py")]
        if (module := points.module_of(file))
        not in {*points.modules(), *points.STATEMENTS}  # the callers' calls are edges
        for edge in points.find(module, ast.parse(file.read_text()), writers).values()
        if not edge.commits
    }
    assert found == set(), "add their packages to SEARCHED"


def test_names_of_points_are_unique_and_valid_as_file_names() -> None:
    found = [point for edge in points.edges() for point in edge.points]
    assert len(found) == len(set(found)) > 100
    assert not [point for point in found if "/" in point or len(point) > 200]


class Stub:
    """The collaborators of the planted module; records their calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.db = self.store = self._broker = self.producer = self

    def write(self, statement: Any, _guard: object) -> Any:
        return statement("tx")

    @contextmanager
    def transaction(self) -> Iterator[str]:
        self.calls.append("begin")
        yield "tx"
        self.calls.append("commit")

    def put_slice(self, key: str, body: str, guard: Any) -> None:
        for _ in range(HALF + 1):
            guard.check()
        self.calls.append(f"put {key} {body}")

    def finish(self, key: str, guard: object = None) -> str:
        self.calls.append(f"finish {key}")
        if guard == "refuse":
            raise ValueError(key)
        return "stored"

    def publish(self, rows: str) -> None:
        self.calls.append(f"publish {rows}")

    def check(self) -> None:
        """Accept everything."""


def load(injector: CrashInjector | None, stub: Stub) -> dict[str, Any]:
    """Load the planted module, rewritten if there is an injector."""
    tree = ast.parse(PLANTED)
    module: dict[str, Any] = {}
    if injector is not None:
        tree = points.rewrite("worker.tasks.planted", tree, WANTED)
        module |= {CROSSING: injector.cross, SENDING: injector.send, ENDING: injector.end}
    exec(compile(tree, "planted", "exec"), module)  # noqa: S102 - our own few lines
    succeed = lambda *args, **named: stub.calls.append(f"succeed {args} {named}")  # noqa: E731
    module["transitions"] = SimpleNamespace(succeed=succeed, read_only=lambda rows: f"read {rows}")
    module["lead"] = lambda tx: stub.calls.append(f"lead {tx}") or 7  # type: ignore[func-returns-value]
    return module


def run(module: dict[str, Any], stub: Stub) -> list[object]:
    work = module["Work"]
    answers: list[object] = [work.done(stub, stub, "claim", "guard"), work.send(stub, "body", stub)]
    answers.append(module["announce"](stub, "rows"))
    return answers


def test_a_rewritten_module_does_the_same() -> None:
    plain, watched = Stub(), Stub()
    assert run(load(None, plain), plain) == run(load(PointRecorder(), watched), watched) == [7, "stored", "read rows"]
    assert plain.calls == watched.calls


def test_points_are_passed_in_order_and_after_the_commit() -> None:
    recorder, stub = PointRecorder(), Stub()
    run(load(recorder, stub), stub)
    short = [point.removeprefix("tasks.planted.").removeprefix("Work.") for point in recorder.passed]
    assert short == [
        "done:succeed:before", "done:succeed:after",
        "done:lead:before", "done:lead:after", "done:commit:before", "done:commit:after",
        "send:put_slice:before", "send:put_slice:middle", "send:put_slice:after",
        "send:put_slice.2:before", "send:put_slice.2:middle", "send:put_slice.2:after",
        "send:finish:before", "send:finish:after",
        "announce:publish:before", "announce:publish:after",
    ]  # fmt: skip


def test_an_error_passes_the_point_after_it_and_goes_on() -> None:
    recorder, stub = PointRecorder(), Stub()
    with pytest.raises(ValueError, match="key"):
        recorder.cross("edge", stub.finish, "key", guard="refuse")
    assert recorder.passed == ["edge:before", "edge:after"]


def test_a_rollback_is_no_commit() -> None:
    recorder = PointRecorder()

    @contextmanager
    def swallowing() -> Iterator[None]:
        with suppress(LookupError):
            yield

    def fail(error: Exception) -> None:
        with recorder.end("edge", swallowing()):
            raise error

    fail(LookupError())
    with pytest.raises(ValueError, match="not swallowed"):
        fail(ValueError("not swallowed"))
    assert recorder.passed == []
