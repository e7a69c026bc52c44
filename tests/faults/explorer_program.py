"""The worker's own tasks, one step at a time.

A task is a function of what it hears: the rows that its statements return, the answers of the store, the loss of
either. So the state of a running task is the list of what it has heard. To go on from there the real task runs anew,
is told the same again, and is held at the first edge about which nothing is known yet: the next statement or request.
No thread is stopped, and what was heard is a value: it can be kept, compared, and gone on with in two ways.
"""

from __future__ import annotations

import dataclasses
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpx
import psycopg
from celery.exceptions import Ignore, Retry

from tests.faults.explorer_edges import SAID, Answered, Cut, Ended, Found, Request, Statement, Told
from worker.errors import SlicewayError
from worker.stores.cos_json.driver import CosJsonStore
from worker.stores.cos_json.errors import failure, kind_of, no_response
from worker.stores.cos_json.response import StoreResponse
from worker.tasks import celery_tasks
from worker.tasks.checkpoint_batcher import Checkpoints
from worker.tasks.context import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self
    from uuid import UUID

    from tests.faults.explorer_edges import Edge, Heard, Program
    from worker.config.profiles import StoreProfile
    from worker.config.settings import Settings
    from worker.db.pool import Database, Tx
    from worker.http.deadline import Guard
    from worker.sources.base import Fingerprint, Source
    from worker.stores.base import StoreDriver
    from worker.stores.cos_json.client import CosJsonClient, Operation

Row = dict[str, Any]
TASKS = {
    task.name: task
    for task in (celery_tasks.init_task, celery_tasks.slice_task, celery_tasks.finish_task, celery_tasks.abort_task)
}


class _Held(BaseException):
    """The task has come to an edge about which nothing is known yet."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge


class _Script:
    """What a task hears this time."""

    def __init__(self) -> None:
        self.left: list[Heard] = []
        self.runtime: _OnEdges | None = None

    def listen(self) -> None:
        """Hear what was said to the process before its next edge."""
        while self.left and isinstance(said := self.left[0], Told):
            assert self.runtime is not None
            self.left.pop(0)
            if said.what == "stop":
                self.runtime.stopping.set()
            for guard in self.runtime.guards():
                guard.lost = guard.lost or said.what == "lost"

    def at(self, edge: Edge) -> Heard:
        """Return what was heard at an edge.

        Raises:
            _Held: nothing yet.
        """
        self.listen()
        if not self.left:
            raise _Held(edge)
        return self.left.pop(0)


class _Connection:
    """A connection whose statements are edges."""

    def __init__(self, script: _Script, names: Mapping[str, str]) -> None:
        self._script, self._names = script, names
        self._inside: int | None = None
        self._rows: list[Row] = []

    def execute(self, statement: str, params: Row) -> Self:
        if self._inside is not None:
            self._inside += 1
            assert self._inside == 1, f"a second statement in one transaction is not modelled: {statement}"
        heard = self._script.at(Statement(self._names.get(statement, statement), params))
        if isinstance(heard, Cut):
            raise psycopg.OperationalError("the connection was cut")
        assert isinstance(heard, Found), heard
        self._rows = heard.rows
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


class _EdgeDatabase:
    """A `Database` of such connections."""

    def __init__(self, script: _Script, names: Mapping[str, str]) -> None:
        self._script, self._names = script, names

    @contextmanager
    def connection(self) -> Iterator[Tx]:
        yield cast("Tx", _Connection(self._script, self._names))


class _EdgeClient:
    """A `CosJsonClient` whose requests are edges: what the driver makes of answers and losses is its own."""

    def __init__(self, script: _Script) -> None:
        self._script = script

    def call(self, ask: Operation, guard: Guard) -> StoreResponse:
        self._script.listen()
        guard.check()
        content = bytes(ask.content) if ask.content is not None else b""
        heard = self._script.at(Request(str(ask.op), dict(ask.fields), content))
        if isinstance(heard, Cut):
            raise no_response(ask.op, ask.key, httpx.ReadError("the connection was cut"))
        assert isinstance(heard, Answered), heard
        answer = StoreResponse(200 if heard.code == 0 else 409, heard.code, f"code {heard.code}", data=heard.data or {})
        if answer.ok or kind_of(answer) in ask.accept:
            return answer
        raise failure(ask.op, ask.key, answer)

    def close(self) -> None:
        """Nothing is open."""


class EdgeStore(CosJsonStore):
    """The driver itself, over such a client."""

    def __init__(self, profile: StoreProfile, script: _Script) -> None:
        super().__init__(profile, httpx.MockTransport(lambda _: httpx.Response(500)))
        self._client.close()
        self._client = cast("CosJsonClient", _EdgeClient(script))


class _Memory:
    """A source that never changes."""

    def __init__(self, content: bytes) -> None:
        self.size_bytes = len(content)
        self.fingerprint: Fingerprint = {"size": len(content), "mtime_ns": 1, "inode": 1}
        self._content = content

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        buffer[:] = self._content[offset_bytes : offset_bytes + buffer.nbytes]

    def verify_unchanged(self) -> None:
        """It is."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class _Prompt(threading.Event):
    """An event that nobody waits for: there is no time here."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
        return self.is_set()


class _OnEdges(Runtime):
    """A worker process whose database and store are edges."""

    def __init__(
        self, settings: Settings, worker: UUID, content: bytes, names: Mapping[str, str], driver: type[EdgeStore]
    ) -> None:
        super().__init__(settings, revoked=lambda _: False)
        self.db.close()
        self.worker = worker
        self.script = _Script()
        self.script.runtime = self
        self.timers = dataclasses.replace(
            self.timers, foreign_upload_recheck_s=0.0
        )  # what happens meanwhile happens between edges
        self.db = cast("Database", _EdgeDatabase(self.script, names))
        self.checkpoints = Checkpoints(self.db, worker, more=self.room.busy)
        self.stopping = _Prompt()
        self._driver = driver(settings.profiles.stores["main"], self.script)
        self._content = content

    def store(self, profile: StoreProfile) -> StoreDriver:
        return self._driver if profile.name == "main" else super().store(profile)

    def source(self, _row: Row) -> Source:
        return _Memory(self._content)


class Programs:
    """The tasks of any number of processes. Remembers to which edge each list of what was heard has led."""

    def __init__(
        self, settings: Settings, content: bytes, names: Mapping[str, str], driver: type[EdgeStore] = EdgeStore
    ) -> None:
        """Run nothing yet.

        Args:
            settings: of the installation; its store is `main`.
            content: of the file.
            names: text of each statement -> its name.
            driver: what the tasks speak to the store with.
        """
        self.runs = 0
        self._settings, self._content, self._names, self._driver = settings, content, names, driver
        self._runtimes: dict[UUID, _OnEdges] = {}
        self._edges: dict[tuple[UUID, Program], Edge] = {}
        self._heard: list[Heard] = list(SAID)
        self._numbers: dict[str, int] = {}

    def number(self, heard: Heard) -> int:
        """Return the number of something that was heard."""
        key = repr(heard)
        if key not in self._numbers:
            self._numbers[key] = len(self._heard)
            self._heard.append(heard)
        return self._numbers[key]

    def edge(self, worker: UUID, program: Program) -> Edge:
        """Return where a program of a worker stands."""
        key = (worker, program)
        if key not in self._edges:
            self._edges[key] = self._run(worker, program)
        return self._edges[key]

    def _run(self, worker: UUID, program: Program) -> Edge:
        self.runs += 1
        if worker not in self._runtimes:
            self._runtimes[worker] = _OnEdges(self._settings, worker, self._content, self._names, self._driver)
        runtime = self._runtimes[worker]
        runtime.script.left = [self._heard[number] for number in program.heard]
        runtime.stopping.clear()
        message = program.message._asdict()
        task = TASKS[message.pop("task")]
        celery_tasks.serve(runtime)
        try:
            task(**message)
        except _Held as held:
            return held.edge
        except Ignore:
            return Ended("lets go")
        except Retry as error:
            cause = error.__cause__
            return Ended("puts it off", cause if not isinstance(cause, SlicewayError) else None)
        except SlicewayError:
            return Ended("gives up")
        finally:
            celery_tasks.serve(None)
        return Ended("ends")
