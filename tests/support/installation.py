"""A whole Sliceway of real processes: database, broker, store, API and workers, and what a test does to them."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import redis
from sqlalchemy import make_url

from tests.support.api import ApiThread, api_client, create_api_key
from tests.support.database import TestDatabase
from tests.support.deadline import DEADLINE_S, until
from tests.support.environ import QUICK, system_environ
from tests.support.job import Job, JobSpec
from tests.support.processes import Worker
from tests.support.store import SLICE_BYTES, StoreServer, profile
from tests.support.stores_file import write_stores
from worker.config.settings import load_settings
from worker.db.pool import Database
from worker.jobs import store_links
from worker.jobs.links import Link
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.support.stores_file import Table
    from worker.local.postgres import EmbeddedPostgres
    from worker.local.valkey import EmbeddedValkey

Row = dict[str, Any]

MIB = 1024 * 1024
BROKERS = 16
"""How many databases a Redis has by default."""


class Installation:
    """Everything up but the workers, which a test asks for. Used by one test after another until one fails."""

    #: The broker's databases in use: an installation whose workers took another's messages would drop them.
    _brokers: ClassVar[set[int]] = set()

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, template: str) -> None:
        """Start everything."""
        self.folder, self.postgres, self.valkey = folder, postgres, valkey
        self.media, self.volume = folder / "media", folder / "volume"
        self.media.mkdir()
        (self.media / "root").touch()  # an empty root counts as not mounted
        self.database = TestDatabase(postgres, template)
        self.sql = self.database.run
        self.jobs: list[Job] = []
        self.dirty = False
        self._broker = min(set(range(BROKERS)) - self._brokers)
        self._brokers.add(self._broker)
        self._empty_broker()  # tests without an installation leave messages there
        self._numbers = itertools.count(1)
        self._workers: list[Worker] = []
        self.store = StoreServer(folder)
        self.environ = self._environ()
        self._start_api()

    @property
    def store_url(self) -> str:
        """Where workers find the store."""
        return self.store.url

    @property
    def broker_url(self) -> str:
        """Its own database of the broker that several share."""
        return make_url(self.valkey.url).set(database=str(self._broker)).render_as_string(hide_password=False)

    def stores(self) -> dict[str, Table]:
        """The profiles of the stores file, by name: two ways to one bucket."""
        urls = {"main": self.store_url, "twin": f"{self.store_url}/"}
        return {name: profile(url, slice_bytes=SLICE_BYTES, answer_timeout_s=20) for name, url in urls.items()}

    def roots(self) -> dict[str, Table]:
        """The roots of the stores file, by name."""
        return {"media": {"path": self.media}, "volume": {"path": self.volume}}

    def stores_file(
        self, name: str = "stores", stores: Mapping[str, Table] | None = None, roots: Mapping[str, Table] | None = None
    ) -> str:
        """Write a stores file, with other profiles or roots if they are given; returns its path."""
        return write_stores(self.folder / f"{name}.toml", stores or self.stores(), roots or self.roots())

    def _environ(self) -> dict[str, str]:
        settings = {"SLICEWAY_API_PORT": "0", "SLICEWAY_LOG_LEVEL": "debug"}
        return system_environ(self.database.url, self.broker_url, self.stores_file(), **settings)

    def _start_api(self) -> None:
        url = f"http://127.0.0.1:{self._serve_api()}"
        self._db = Database(self.database.url, pool_size=1, application="tests")
        key = create_api_key(self.database.url)
        self.api = api_client(url, key, transport=self._way_to_api(), timeout_s=DEADLINE_S)

    def _way_to_api(self) -> httpx.BaseTransport | None:
        return None

    def _serve_api(self) -> int:
        """Start the API, in this process; returns its port."""
        self._api = ApiThread(load_settings({n: v for n, v in self.environ.items() if n.startswith("SLICEWAY_")}))
        return self._api.port

    def _stop_api(self) -> None:
        self._api.stop()

    # workers

    def workers(self, count: int, argv: Sequence[str] | None = None, **settings: str) -> list[Worker]:
        """Have exactly so many worker processes with these settings, the short times if not named; returns them."""
        environ = self.environ | QUICK | settings
        fit = [worker for worker in self._workers if worker.alive and worker.environ == environ and argv is None]
        for worker in [worker for worker in self._workers if worker.alive and worker not in fit[:count]]:
            worker.stop()
        kept = fit[:count]
        self._workers = [worker for worker in self._workers if worker in kept]
        started = [self.start_worker(environ, argv) for _ in range(count - len(kept))]
        for worker in started:
            assert self.known(worker), worker.text()
        return kept + started

    def start_worker(self, environ: Mapping[str, str], argv: Sequence[str] | None = None) -> Worker:
        """Start one more worker, without waiting for it."""
        number = next(self._numbers)
        worker = Worker(number, environ, self.folder / f"worker-{number}.log", argv)
        self._workers.append(worker)
        return worker

    def known(self, worker: Worker) -> bool:
        """Wait until a process, or one of its children, has said that it lives."""

        def there() -> bool:
            names = [f"%:{pid}" for pid in (worker.pid, *worker.children())]
            query = "SELECT name FROM worker WHERE ended_at IS NULL AND name LIKE ANY (%(names)s)"
            return bool(self.sql(query, names=names))

        return wait_until(there, timeout_s=DEADLINE_S, poll_s=0.05, alive=lambda: worker.alive)

    def holder(self, job: Job, number: int) -> Worker:
        """The worker process that has claimed a slice."""
        [row] = self.sql(
            "SELECT w.name FROM slice s JOIN worker w ON w.id = s.worker WHERE s.job_id = %(job)s AND s.number = %(n)s",
            job=job.id,
            n=number,
        )
        return self.worker_named(row["name"])

    def worker_named(self, name: str) -> Worker:
        """The worker process that has this name in the database."""
        return next(worker for worker in self._workers if name.endswith(f":{worker.pid}"))

    # jobs

    def file(self, path: str, size_bytes: int, root: Path | None = None) -> bytes:
        """Write a file of random bytes below a root and return them."""
        content = random.Random(path).randbytes(size_bytes)
        place = (root or self.media) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return content

    def fresh_key(self) -> str:
        """A key that nothing else has: to make rules for it before there is a job."""
        return f"object-{os.urandom(4).hex()}"

    def enqueue(self, size_bytes: int, key: str | None = None, *, content: bytes | None = None, **fields: Any) -> Job:
        """Write a file and ask the API to upload it."""
        key = key or self.fresh_key()
        if content is None:
            content = self.file(key, size_bytes)
        else:
            (self.media / key).write_bytes(content)
        return self.submit(JobSpec(key, key, fields), content)

    def submit(self, spec: JobSpec, content: bytes) -> Job:
        """Ask the API to upload a file that is there."""
        answer = self.api.post("/v1/jobs", json=spec.document)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return self.note(Job(self, answer.json()["id"], spec.key, content, self.media / spec.path))

    def enqueue_held(
        self, size_bytes: int, op: str = "data", *, requests: int = 1, **rule: Any
    ) -> tuple[Job, Callable[[], None]]:
        """Enqueue a file, and wait until the store holds requests for it; returns the job and their release."""
        key = self.fresh_key()
        release = self.store.hold(op, key, **rule)
        job = self.enqueue(size_bytes, key)
        self.store.held(op, key, requests)
        return job, release

    def enqueue_half_sent(self) -> Job:
        """Have all slices of a job sent but its first, and stop all workers then."""
        self.workers(1)
        job, release = self.enqueue_held(2 * MIB, offset=0)
        self.until(lambda: job.done() == 3, "the other slices done")
        self.workers(0)
        release()
        return job

    def note(self, job: Job) -> Job:
        """Remember a job, to be judged when the test is over."""
        self.jobs.append(job)
        return job

    def unmount(self) -> None:
        """Let the volume not be there, not even its mount point."""
        shutil.rmtree(self.volume, ignore_errors=True)

    # time

    def until(self, done: Callable[[], object], what: str) -> None:
        """Wait until something is so; fails with its name when it is not so in time."""
        until(done, what)

    # the broker

    def broker(self) -> redis.Redis:
        """A client of the broker."""
        return redis.Redis.from_url(self.broker_url, socket_timeout=5)

    def broker_answers(self) -> bool:
        """Whether the broker is there."""
        try:
            with self.broker() as broker:
                return bool(broker.ping())
        except redis.RedisError:
            return False

    def _empty_broker(self) -> None:
        with suppress(redis.RedisError), self.broker() as broker:
            broker.flushdb()

    # the end

    def begin(self) -> None:
        """Forget what the test before has left behind."""
        self.jobs = []
        self.store.forget()
        self.know_links()

    def know_links(self) -> None:
        """Have the links to the stores known as fast: a store that never answered gets one slice at a time."""
        with self._db.connection() as tx:
            store_links.keep_links(tx, {store: Link(1e12, SLICE_BYTES, 0.01) for store in ("main", "twin")})

    def calm(self) -> None:
        """Undo the faults of the test."""
        for worker in self._workers:
            if worker.alive:
                worker.thaw()
        self.store.calm()
        self._workers = [worker for worker in self._workers if worker.alive]

    def logs(self) -> list[Path]:
        """The logs of all workers, newest first."""
        return sorted(self.folder.glob("worker-*.log"), key=lambda log: log.stat().st_mtime, reverse=True)

    def close(self) -> None:
        """Stop everything."""
        for worker in self._workers:
            worker.stop()
        self._stop_api()
        self.api.close()
        self._db.close()
        self.store.stop()
        self._empty_broker()
        self._brokers.discard(self._broker)
        self.database.drop()
