"""An installation whose processes are killed at a named crash point, and started again."""

from __future__ import annotations

import sys
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.faults.fork_server import ForkServer
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

    from tests.faults.fork_server import ForkedProcess
    from tests.support.job import Job, JobSpec

Row = dict[str, Any]

WORKERS = 3
"""How many workers run at any time: without one there are enough others."""
#: A tenth of all times: a scenario mostly waits for the detection of a death. A live worker's heartbeat arrives in time
#: on a loaded machine, too: a worker that is declared dead by mistake starts anew, which adds load.
SETTINGS = {"SLICEWAY_TIME_SCALE": "0.1", "SLICEWAY_DEAD_AFTER_S": "12", "SLICEWAY_LOG_LEVEL": "info"}
POLL_S = 0.02
_SUCCESSES = frozenset({"stored_at_once", "proven", "cancel_too_late"})


class RetryingTransport(httpx.BaseTransport):
    """Repeats a request whose connection is cut, under the same idempotency key."""

    def __init__(self, restart_dead: Callable[[], None]) -> None:
        self._transport, self._restart_dead = httpx.HTTPTransport(), restart_dead

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request until there is an answer."""
        if request.method == "POST" and request.url.path == "/v1/jobs":
            request.headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        answers: list[httpx.Response] = []

        def answered() -> bool:
            try:
                answers.append(self._transport.handle_request(request))
            except httpx.TransportError:
                self._restart_dead()
            return bool(answers)

        assert wait_until(answered, timeout_s=DEADLINE_S, poll_s=POLL_S), "the API does not answer"
        return answers[0]

    def close(self) -> None:
        """Close its connections."""
        self._transport.close()


class CrashHarness(Installation):
    """Plays one scenario after the other, each with one point armed or none."""

    def _serve_api(self) -> int:
        self.environ |= SETTINGS
        self.fork_server = ForkServer(self.folder / "points", self.environ)
        self._connection = psycopg.connect(conninfo(self.database.url), autocommit=True, row_factory=dict_row)
        self.sql = self._query
        self._point_to_arm: str | None = None
        self._began_s = 0.0
        port = free_port()
        self.environ["SLICEWAY_API_PORT"] = str(port)
        self._api_process = self._launch_api()
        return port

    def _way_to_api(self) -> httpx.BaseTransport:
        return RetryingTransport(self.restart_dead)

    def _launch_api(self) -> ForkedProcess:
        return self.fork_server.launch([sys.executable, "-m", "api"], log=self.folder / "api.log", env=self.environ)

    def _query(self, statement: str, **params: Any) -> list[Row]:
        cursor = self._connection.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def _stop_api(self) -> None:
        self._connection.close()

    # processes

    def start_worker(self, environ: Mapping[str, str], argv: Sequence[str] | None = None) -> Worker:
        """Start one more worker, without waiting for it."""
        number = next(self._numbers)
        worker = Worker(number, environ, self.folder / f"worker-{number}.log", argv, self.fork_server.launch)
        self._workers.append(worker)
        return worker

    def restart_dead(self) -> None:
        """Start again each process that has ended."""
        self._workers = [worker for worker in self._workers if worker.alive]
        for _ in range(WORKERS - len(self._workers)):
            self.start_worker(self.environ)
        if self._api_process.poll() is not None:
            self._api_process = self._launch_api()

    def live_workers(self) -> list[Worker]:
        """The workers, as soon as the database knows all of them."""

        def complete() -> bool:
            names = [row["name"] for row in self.sql("SELECT name FROM worker WHERE ended_at IS NULL")]
            return all(any(name.endswith(f":{worker.pid}") for name in names) for worker in self._workers)

        self.until(complete, "all workers")
        return list(self._workers)

    def worker_of(self, identity: object) -> Worker | None:
        """The worker process with this identity, unless it has ended."""
        [row] = self.sql("SELECT name FROM worker WHERE id = %(id)s", id=identity)
        return next((worker for worker in self._workers if row["name"].endswith(f":{worker.pid}")), None)

    def until(self, done: Callable[[], object], what: str) -> None:
        """Wait for a condition, and start again each process that ends meanwhile."""

        def met() -> bool:
            self.restart_dead()
            return bool(done())

        assert wait_until(met, timeout_s=DEADLINE_S, poll_s=POLL_S), f"not in {DEADLINE_S:g} s: {what}"

    def held(self, op: str, key: str) -> None:
        """Wait until the store holds a request, and start again each process that ends meanwhile."""
        self.until(lambda: self.store.requests(op=op, path=key, state="held"), f"{op} of {key} held")

    # points

    def submit(self, spec: JobSpec, content: bytes) -> Job:
        """Arm the point, and ask the API to upload a file that is there."""
        self.arm_point()
        return super().submit(spec, content)

    def arm_point(self) -> None:
        """Arm the point, if it is not armed yet."""
        point, self._point_to_arm = self._point_to_arm, None
        if point is not None:
            self.fork_server.arm(point)

    def play(self, scenario: Callable[[CrashHarness], None], point: str | None = None) -> list[str]:
        """Play a scenario with a crash at the point; returns what does not hold in the end."""
        self.begin()
        self.fork_server.forget()
        self._began_s = time.time()
        self._point_to_arm = point
        self.restart_dead()
        try:
            scenario(self)
        finally:
            self.fork_server.disarm()
        self.calm()
        self.restart_dead()
        return [*broken(self), *self._violations()]

    def _violations(self) -> Iterator[str]:
        """Check what must hold beside the invariants of every installation."""
        for job in self.jobs:
            successes = [kind for kind in job.kinds if kind in _SUCCESSES]
            if job.state == "succeeded" and len(successes) != 1:
                yield f"job {job.key} succeeded {len(successes)} times: {successes}"
        known = {job.id for job in self.jobs}
        for row in self.sql("SELECT id, key FROM job WHERE created_at > to_timestamp(%(at)s)", at=self._began_s):
            if str(row["id"]) not in known:
                yield f"job {row['id']} for {row['key']} exists, and no client knows it"
        for row in self.sql("SELECT store FROM breaker"):
            yield f"the breaker of store {row['store']} is still open"

    @contextmanager
    def evidence_on_failure(self) -> Iterator[None]:
        """Print what happened after a failure; the harness is not used again then."""
        try:
            yield
        except BaseException:
            self.dirty = True
            sys.stderr.write(evidence(self))
            raise

    def logs(self) -> list[Path]:
        """The logs of the workers that ran in this scenario."""
        return [log for log in super().logs() if log.stat().st_mtime >= self._began_s]

    def close(self) -> None:
        """Stop everything."""
        self.fork_server.close()
        super().close()
