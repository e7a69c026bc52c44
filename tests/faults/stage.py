"""An installation whose processes die at a named point, and are started again as soon as they have."""

from __future__ import annotations

import sys
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.faults.nursery import Nursery
from tests.support.deadline import DEADLINE_S
from tests.support.evidence import evidence
from tests.support.installation import Installation
from tests.support.invariants import broken
from tests.support.processes import Worker
from worker.db.pool import conninfo
from worker.local.ports import free_port
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.faults.nursery import Forked
    from tests.support.job import Job, JobSpec

Row = dict[str, Any]

CREW = 3
"""Workers that run at any time: one that dies leaves enough others."""
#: A tenth of all times: most of what a play takes is the wait for a death to be noticed. Whoever lives is heard within
#: that time on a loaded machine, too: a worker that is taken for dead starts anew, which is load on top.
SETTINGS = {"SLICEWAY_TIME_SCALE": "0.1", "SLICEWAY_DEAD_AFTER_S": "12", "SLICEWAY_LOG_LEVEL": "info"}
POLL_S = 0.02
_ENDS = frozenset({"stored_at_once", "proven", "cancel_too_late"})


class Persistent(httpx.BaseTransport):
    """What a careful client does when its connection is cut: the same again, under the same idempotency key."""

    def __init__(self, tend: Callable[[], None]) -> None:
        self._way, self._tend = httpx.HTTPTransport(), tend

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask until there is an answer."""
        if request.method == "POST" and request.url.path == "/v1/jobs":
            request.headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        answers: list[httpx.Response] = []

        def answered() -> bool:
            try:
                answers.append(self._way.handle_request(request))
            except httpx.TransportError:
                self._tend()
            return bool(answers)

        assert wait_until(answered, timeout_s=DEADLINE_S, poll_s=POLL_S), "the API does not answer"
        return answers[0]

    def close(self) -> None:
        """Close its connections."""
        self._way.close()


class Stage(Installation):
    """The installation: scenarios are played on it, one after the other, with one point armed or none."""

    def _serve_api(self) -> int:
        self.environ |= SETTINGS
        self.nursery = Nursery(self.folder / "points", self.environ)
        self._asking = psycopg.connect(conninfo(self.database.url), autocommit=True, row_factory=dict_row)
        self.sql = self._ask
        self._to_strike: str | None = None
        self._began_s = 0.0
        port = free_port()
        self.environ["SLICEWAY_API_PORT"] = str(port)
        self._api_process = self._launch_api()
        return port

    def _way_to_api(self) -> httpx.BaseTransport:
        return Persistent(self.tend)

    def _launch_api(self) -> Forked:
        return self.nursery.launch([sys.executable, "-m", "api"], log=self.folder / "api.log", env=self.environ)

    def _ask(self, statement: str, **params: Any) -> list[Row]:
        cursor = self._asking.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def _stop_api(self) -> None:
        self._asking.close()

    # processes

    def start_worker(self, environ: Mapping[str, str], argv: Sequence[str] | None = None) -> Worker:
        """Start one more worker, without waiting for it."""
        number = next(self._numbers)
        worker = Worker(number, environ, self.folder / f"worker-{number}.log", argv, self.nursery.launch)
        self._workers.append(worker)
        return worker

    def tend(self) -> None:
        """Start again whatever has died."""
        self._workers = [worker for worker in self._workers if worker.alive]
        for _ in range(CREW - len(self._workers)):
            self.start_worker(self.environ)
        if self._api_process.poll() is not None:
            self._api_process = self._launch_api()

    def crew(self) -> list[Worker]:
        """The workers, all of them known to the database."""

        def complete() -> bool:
            names = [row["name"] for row in self.sql("SELECT name FROM worker WHERE ended_at IS NULL")]
            return all(any(name.endswith(f":{worker.pid}") for name in names) for worker in self._workers)

        self.until(complete, "a whole crew")
        return list(self._workers)

    def worker_of(self, identity: object) -> Worker | None:
        """The worker process with this identity, unless it is gone."""
        [row] = self.sql("SELECT name FROM worker WHERE id = %(id)s", id=identity)
        return next((worker for worker in self._workers if row["name"].endswith(f":{worker.pid}")), None)

    def until(self, done: Callable[[], object], what: str) -> None:
        """Wait until something is so, and start again what dies meanwhile."""

        def there() -> bool:
            self.tend()
            return bool(done())

        assert wait_until(there, timeout_s=DEADLINE_S, poll_s=POLL_S), f"not in {DEADLINE_S:g} s: {what}"

    def held(self, op: str, key: str) -> None:
        """Wait until the store holds a request, and start again what dies before it has come."""
        self.until(lambda: self.store.requests(op=op, path=key, state="held"), f"{op} of {key} held")

    # points

    def submit(self, spec: JobSpec, content: bytes) -> Job:
        """Ask the API to upload a file that is there; the point is armed by then."""
        self.strike()
        return super().submit(spec, content)

    def strike(self) -> None:
        """Arm the point, if that has not been done."""
        point, self._to_strike = self._to_strike, None
        if point is not None:
            self.nursery.arm(point)

    def play(self, scenario: Callable[[Stage], None], point: str | None = None) -> list[str]:
        """Play a scenario, somebody dying at the point; returns what does not hold in the end."""
        self.begin()
        self.nursery.forget()
        self._began_s = time.time()
        self._to_strike = point
        self.tend()
        try:
            scenario(self)
        finally:
            self.nursery.disarm()
        self.calm()
        self.tend()
        return [*broken(self), *self._beside()]

    def _beside(self) -> Iterator[str]:
        """What must hold beside the invariants of every installation."""
        for job in self.jobs:
            ends = [kind for kind in job.kinds if kind in _ENDS]
            if job.state == "succeeded" and len(ends) != 1:
                yield f"job {job.key} succeeded {len(ends)} times: {ends}"
        known = {job.id for job in self.jobs}
        for row in self.sql("SELECT id, key FROM job WHERE created_at > to_timestamp(%(at)s)", at=self._began_s):
            if str(row["id"]) not in known:
                yield f"job {row['id']} for {row['key']} was made, and nobody was told"
        for row in self.sql("SELECT store FROM breaker"):
            yield f"store {row['store']} still waits"

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what happened, if it goes wrong; the stage is not used again then."""
        try:
            yield
        except BaseException:
            self.dirty = True
            sys.stderr.write(evidence(self))
            raise

    def logs(self) -> list[Path]:
        """The logs of the workers that ran in this play."""
        return [log for log in super().logs() if log.stat().st_mtime >= self._began_s]

    def close(self) -> None:
        """Stop everything."""
        self.nursery.close()
        super().close()
