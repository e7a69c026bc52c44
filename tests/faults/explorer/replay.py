"""Deterministic replay of the worker's own tasks, one step at a time.

A task is a function of its inputs: the rows that its statements return, the store's answers, the loss of either. So the
state of a running task is the list of its inputs. To continue a task, the replayer runs the real task from its start
with the same inputs, and stops it at the first edge (a statement or request) that has no recorded input. No thread is
paused, and a list of inputs is a value: the explorer keeps it, compares it, and continues it in several ways.
"""

from __future__ import annotations

import dataclasses
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx
import psycopg
from celery.exceptions import Ignore, Retry

from tests.faults.explorer.edges import (
    FIXED_INPUTS,
    ConnectionLost,
    Ended,
    QueryResult,
    Request,
    Signal,
    Statement,
    StoreAnswer,
)
from worker.errors import SlicewayError
from worker.stores.cos_json.driver import CosJsonStore
from worker.stores.cos_json.errors import failure, kind_of, no_response
from worker.stores.cos_json.response import StoreResponse
from worker.tasks import celery_tasks
from worker.tasks.checkpoint_batcher import Checkpoints
from worker.tasks.context import Runtime
from worker.tasks.drivers import Drivers
from worker.tasks.guards import Guards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self
    from uuid import UUID

    from tests.faults.explorer.edges import Edge, Input, TaskRun
    from worker.config.profiles import StoreProfile
    from worker.config.settings import Settings
    from worker.db.pool import Connection, Database
    from worker.http.deadline import Guard
    from worker.sources.base import Fingerprint, Source
    from worker.stores.base import StoreDriver
    from worker.stores.cos_json.client import CosJsonClient, Operation

Row = dict[str, Any]
TASKS = {
    task.name: task
    for task in (celery_tasks.init_task, celery_tasks.slice_task, celery_tasks.finish_task, celery_tasks.abort_task)
}


class _NoInput(BaseException):
    """The task has reached an edge that has no recorded input."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge


class _Inputs:
    """The recorded inputs of the task that is replayed."""

    def __init__(self) -> None:
        self.left: list[Input] = []
        self.runtime: _ReplayRuntime | None = None

    def deliver_signals(self) -> None:
        """Give the process the signals that come before its next edge."""
        while self.left and isinstance(signal := self.left[0], Signal):
            assert self.runtime is not None
            self.left.pop(0)
            if signal.what == "stop":
                self.runtime.stopping.set()
            for guard in self.runtime.guards.current():
                guard.lost = guard.lost or signal.what == "lost"

    def at(self, edge: Edge) -> Input:
        """Return the input that was recorded at an edge.

        Raises:
            _NoInput: there is none yet.
        """
        self.deliver_signals()
        if not self.left:
            raise _NoInput(edge)
        return self.left.pop(0)


class _ReplayConnection:
    """A connection whose statements are edges."""

    def __init__(self, inputs: _Inputs, names: Mapping[str, str]) -> None:
        self._inputs, self._names = inputs, names
        self._inside: int | None = None
        self._rows: list[Row] = []

    def execute(self, statement: str, params: Row) -> Self:
        if self._inside is not None:
            self._inside += 1
            assert self._inside == 1, f"a second statement in one transaction is not modelled: {statement}"
        result = self._inputs.at(Statement(self._names.get(statement, statement), params))
        if isinstance(result, ConnectionLost):
            raise psycopg.OperationalError("the connection was cut")
        assert isinstance(result, QueryResult), result
        self._rows = result.rows
        return self

    def fetchone(self) -> Row | None:
        return dict(self._rows[0]) if self._rows else None

    def fetchall(self) -> list[Row]:
        return [dict(row) for row in self._rows]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.fetchall())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._inside = 0
        yield
        self._inside = None


class _ReplayDatabase:
    """A `Database` of such connections."""

    def __init__(self, inputs: _Inputs, names: Mapping[str, str]) -> None:
        self._inputs, self._names = inputs, names

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        yield cast("Connection", _ReplayConnection(self._inputs, self._names))


class _ReplayClient:
    """A `CosJsonClient` whose requests are edges; the driver handles answers and losses with its own code."""

    def __init__(self, inputs: _Inputs) -> None:
        self._inputs = inputs

    def call(self, ask: Operation, guard: Guard) -> StoreResponse:
        self._inputs.deliver_signals()
        guard.check()
        content = bytes(ask.content) if ask.content is not None else b""
        given = self._inputs.at(Request(str(ask.op), dict(ask.fields), content))
        if isinstance(given, ConnectionLost):
            raise no_response(ask.op, ask.key, httpx.ReadError("the connection was cut"))
        assert isinstance(given, StoreAnswer), given
        answer = StoreResponse(200 if given.code == 0 else 409, given.code, f"code {given.code}", data=given.data or {})
        if answer.ok or kind_of(answer) in ask.accept:
            return answer
        raise failure(ask.op, ask.key, answer)

    def close(self) -> None:
        """Nothing is open."""


class ReplayDriver(CosJsonStore):
    """The driver itself, over such a client."""

    def __init__(self, profile: StoreProfile, inputs: _Inputs) -> None:
        super().__init__(profile, httpx.MockTransport(lambda _: httpx.Response(500)))
        self._client.close()
        self._client = cast("CosJsonClient", _ReplayClient(inputs))


class _MemorySource:
    """A source that never changes."""

    def __init__(self, content: bytes) -> None:
        self.size_bytes = len(content)
        self.fingerprint: Fingerprint = {"size": len(content), "mtime_ns": 1, "inode": 1}
        self._content = content

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        buffer[:] = self._content[offset_bytes : offset_bytes + buffer.nbytes]

    def verify_unchanged(self) -> None:
        """Accept it."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class _InstantEvent(threading.Event):
    """An event whose wait returns at once: there is no time here."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
        return self.is_set()


class _ReplayDrivers(Drivers):
    """The driver whose requests are edges, for the store `main`."""

    def __init__(self, main: StoreDriver) -> None:
        super().__init__()
        self._main = main

    def open(self, profile: StoreProfile) -> StoreDriver:
        return self._main if profile.name == "main" else super().open(profile)


class _ReplayRuntime(Runtime):
    """A worker process whose statements and requests are edges."""

    def __init__(
        self, settings: Settings, worker: UUID, content: bytes, names: Mapping[str, str], driver: type[ReplayDriver]
    ) -> None:
        super().__init__(settings, revoked=lambda _: False)
        self.db.close()
        self.worker = worker
        self.inputs = _Inputs()
        self.inputs.runtime = self
        # everything happens between edges: a wait gives nothing time to happen
        self.timers = dataclasses.replace(self.timers, foreign_upload_recheck_s=0.0)
        self.db = cast("Database", _ReplayDatabase(self.inputs, names))
        self.checkpoints = Checkpoints(self.db, worker, more=self.transfers.room.busy)
        self.stopping = _InstantEvent()
        self.guards = Guards(self.stopping, revoked=lambda _: False)
        self.drivers = _ReplayDrivers(driver(settings.profiles.stores["main"], self.inputs))
        self._content = content

    def source(self, _row: Row) -> Source:
        return _MemorySource(self._content)


class TaskReplayer:
    """Replays the tasks of any number of processes, and remembers the edge to which each list of inputs leads."""

    def __init__(
        self, settings: Settings, content: bytes, names: Mapping[str, str], driver: type[ReplayDriver] = ReplayDriver
    ) -> None:
        """Replay nothing yet.

        Args:
            settings: of the installation; its store is `main`.
            content: of the file.
            names: text of each statement -> its name.
            driver: the store driver of the tasks.
        """
        self.runs = 0
        self._settings, self._content, self._names, self._driver = settings, content, names, driver
        self._runtimes: dict[UUID, _ReplayRuntime] = {}
        self._edges: dict[tuple[UUID, TaskRun], Edge] = {}
        self._inputs: list[Input] = list(FIXED_INPUTS)
        self._numbers: dict[str, int] = {}

    def number(self, given: Input) -> int:
        """Return the number of an input."""
        key = repr(given)
        if key not in self._numbers:
            self._numbers[key] = len(self._inputs)
            self._inputs.append(given)
        return self._numbers[key]

    def edge(self, worker: UUID, run: TaskRun) -> Edge:
        """Return the next edge of a worker's task."""
        key = (worker, run)
        if key not in self._edges:
            self._edges[key] = self._replay(worker, run)
        return self._edges[key]

    def _replay(self, worker: UUID, run: TaskRun) -> Edge:
        self.runs += 1
        if worker not in self._runtimes:
            self._runtimes[worker] = _ReplayRuntime(self._settings, worker, self._content, self._names, self._driver)
        runtime = self._runtimes[worker]
        runtime.inputs.left = [self._inputs[number] for number in run.inputs]
        runtime.stopping.clear()
        message = run.message._asdict()
        task = TASKS[message.pop("task")]
        celery_tasks.serve(runtime)
        try:
            task(**message)
        except _NoInput as stopped:
            return stopped.edge
        except Ignore:
            return Ended("gives its claim back")
        except Retry as error:
            cause = error.__cause__
            return Ended("defers", cause if not isinstance(cause, SlicewayError) else None)
        except SlicewayError:
            return Ended("gives up")
        finally:
            celery_tasks.serve(None)
        return Ended("ends")
