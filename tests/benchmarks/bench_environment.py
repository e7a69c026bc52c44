"""What the compared clients share: one store, one file, one broker; and Sliceway as shipped, beside them."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from measure import MIB, api_of, cpu_by_role, descendants, role_of, scratch, system

from tests.support.store import APPID, BUCKET, SECRET_ID, SECRET_KEY, StoreServer, profile
from tests.support.stores_file import write_stores
from worker.db.pool import conninfo
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.support.stores_file import Table
    from worker.emulator.control import Control
    from worker.local.system import Running

KEY = "large.bin"
THEIRS = ("client", "plain worker", "valkey")
HERE = Path(__file__).parent
OURS = ("api", "worker parent", "worker process", "postgres", "valkey")
_DEADLINE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run: wall seconds, and CPU seconds by what used them."""

    wall_s: float
    cpu_s: Mapping[str, float]

    @property
    def client_s(self) -> float:
        """CPU seconds of all that is not the store: of Sliceway, or of the other client that was measured."""
        return sum(self.cpu_s.get(role, 0.0) for role in (THEIRS if "client" in self.cpu_s else OURS))


@dataclass(frozen=True, slots=True)
class BenchEnvironment:
    """Everything that a case needs."""

    folder: Path
    running: Running
    store_url: str
    control: Control
    stems: Iterator[str] = field(default_factory=lambda: (f"run{number:04}" for number in itertools.count()))

    @property
    def files(self) -> Path:
        """Where the source files lie."""
        return self.folder / "files"

    def file(self, name: str, size_bytes: int) -> Path:
        """Make a file of random bytes; it is in the page cache then."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        block = random.Random(name).randbytes(min(size_bytes, 16 * MIB))
        with path.open("wb") as file:
            while file.tell() < size_bytes:
                file.write(block[: size_bytes - file.tell()])
        return path

    def sparse(self, name: str, size_bytes: int) -> Path:
        """Make a file of zeros that takes no room; what it was before is gone."""
        path = self.files / name
        with path.open("wb") as file:
            file.truncate(size_bytes)
        return path

    def upload(self, names: Sequence[str], *, slice_mib: int, **fields: Any) -> Run:
        """Upload files with Sliceway to keys that the store does not know, as all clients do here.

        The time runs from the first request until the last job's `finished_at`. The store forgets the objects then.
        """
        stem, store = next(self.stems), f"store{slice_mib}"
        jobs = [
            {"source": {"kind": "file", "root": "files", "path": name}, "store": store, "key": f"{stem}/{name}"}
            | fields
            for name in names
        ]
        with api_of(self.running) as api:  # a web backend has its client; to make one takes 30 ms
            before, began_s = cpu_by_role(), time.time()
            for start in range(0, len(jobs), 1000):
                answer = api.post("/v1/jobs/batch", json={"jobs": jobs[start : start + 1000]}).raise_for_status()
                refused = [each for each in answer.json()["results"] if each["status"] != httpx.codes.ACCEPTED]
                if refused:
                    sys.exit(f"refused: {refused[0]}")
        run = Run(self.settled() - began_s, _used_since(before))
        self.forget()
        return run

    def forget(self) -> None:
        """Remove the bytes of all objects: they lie in memory, and nothing reads them. No upload may be under way."""
        for content in (self.folder / "data" / "content").iterdir():
            content.unlink(missing_ok=True)

    def settled(self) -> float:
        """Wait until every job has ended; exit if one has failed or has an error to retry.

        Returns:
            When the last one ended, in seconds since 1970.
        """
        url = conninfo(self.running.settings.database_url)
        with psycopg.connect(url, autocommit=True) as database:
            live = "SELECT EXISTS (SELECT FROM job WHERE finished_at IS NULL AND error IS NULL)"
            assert wait_until(
                lambda: database.execute(live).fetchone() == (False,), timeout_s=_DEADLINE_S, poll_s=0.05
            ), "jobs are stuck"
            bad = database.execute("SELECT key, error FROM job WHERE state <> 'succeeded' LIMIT 1").fetchone()
            ended = database.execute("SELECT extract(epoch FROM max(finished_at))::float8 FROM job").fetchone()
        if bad:
            sys.exit(f"{bad[0]} failed: {bad[1]}")
        return float(ended[0]) if ended and ended[0] else time.time()

    def other(
        self, argv: Sequence[str | Path], given: Mapping[str, object], env: Mapping[str, str] | None = None
    ) -> Run:
        """Run another client, which reads JSON arguments and prints the seconds that it took, its start left out.

        Every run has keys of its own: they begin with ``stem``.
        """
        store = {"store": self.store_url, "appid": APPID, "bucket": BUCKET, "id": SECRET_ID, "key": SECRET_KEY}
        arguments = json.dumps({**store, "stem": next(self.stems), **given})
        roles, environ = cpu_by_role(), {**os.environ, **(env or {})}
        done = subprocess.run(
            [*map(str, argv)], input=arguments, capture_output=True, text=True, env=environ, check=False
        )
        if done.returncode != 0:
            sys.exit(f"{argv[1]}: {done.stdout[-500:]} {done.stderr[-1500:]}")
        took = json.loads(done.stdout.splitlines()[-1])
        run = Run(took["s"], _used_since(roles) | {"client": took["cpu_s"]})
        self.forget()
        return run


def _used_since(before: Mapping[str, float]) -> dict[str, float]:
    return {role: used - before.get(role, 0.0) for role, used in cpu_by_role().items()}


@contextmanager
def bench_environment(
    *options: str,
    settings: Mapping[str, str] | None = None,
    more_stores: Callable[[str], dict[str, Table]] = lambda _url: {},
) -> Iterator[BenchEnvironment]:
    """Start everything; the store does not sync, and keeps its objects in memory where that is possible.

    ``options`` are more of the emulator's, ``more_stores`` returns more profiles for the emulator's address.
    """
    memory = Path("/dev/shm")
    with scratch(memory if memory.is_dir() else None) as folder:
        store = StoreServer(folder, *options, journal=False)
        (folder / "files").mkdir()
        stores = {f"store{mib}": profile(store.url, slice_bytes=mib * MIB) for mib in (1, 3)}
        file = write_stores(
            folder / "stores.toml", stores | more_stores(store.url), {"files": {"path": folder / "files"}}
        )
        try:
            with system({"SLICEWAY_STORES_FILE": file, **(settings or {})}) as (_, running):
                store.control.change(instant_upload=False)  # the same bytes come in every run, and are to be sent
                yield BenchEnvironment(folder, running, store.url, store.control)
        finally:
            store.stop()


@contextmanager
def halted(site: BenchEnvironment) -> Iterator[None]:
    """Hold the workers, so that something else is measured alone."""
    site.settled()
    workers = [pid for pid in descendants(os.getpid()) if role_of(pid) in {"worker parent", "worker process"}]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
