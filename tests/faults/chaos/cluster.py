"""A whole Sliceway whose processes can all be killed: servers, store, API processes and workers."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from tests.faults.chaos.store import ChaosStore
from tests.faults.chaos.supervisor import SupervisedProcess, Supervisor, processes_with
from tests.faults.chaos.workload import REQUESTED_SLICE_BYTES
from tests.faults.checker import install
from tests.support.api import api_client, create_api_key
from tests.support.database import TestDatabase
from tests.support.environ import system_environ
from tests.support.processes import PARENT
from tests.support.relay import Link, Relay
from tests.support.store import profile
from tests.support.stores_file import write_stores
from tests.support.templates import make_template
from worker.local.ports import free_port
from worker.local.postgres import EmbeddedPostgres
from worker.local.process import wait_until
from worker.local.valkey import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = dict[str, Any]

THREADS = 4
TENANTS = ("acme", "bolt")
#: With so many workers or more, two of them are children of a pool parent.
_POOL_FROM = 4
_READY_TIMEOUT_S = 60.0
_SOCKET_BUFFER_BYTES = 32 * 1024
_CLAIMS = Path(__file__).with_name("claims.sql")


class Cluster:
    """The run's own servers, its API processes and its workers: some alone, two as children of a pool parent."""

    def __init__(
        self, folder: Path, *, workers: int, apis: int, settings: Mapping[str, str], link_bytes_per_s: int | None = None
    ) -> None:
        """Start all of it and wait until it is ready.

        Args:
            folder: of all files; an unprivileged account must be able to pass through.
            workers: worker processes.
            apis: API processes.
            settings: of every process, beside the addresses.
            link_bytes_per_s: bandwidth of the link between the workers and the store; None: no limit.
        """
        self.folder, self.media, self.history = folder, folder / "media", folder / "history.jsonl"
        self.media.mkdir()
        (self.media / "root").touch()  # an empty root counts as not mounted
        self.postgres = EmbeddedPostgres(folder / "postgres", durable=False)
        self.valkey = EmbeddedValkey(folder / "valkey", durable=False)
        self.postgres.start()
        self.valkey.start()
        self.database = _make_database(self.postgres)
        self.store = ChaosStore(folder)
        self.link = self._link(link_bytes_per_s)
        self.environ = self._environ(settings)
        self.keys = {tenant: create_api_key(self.database.url, tenant) for tenant in TENANTS}
        ports = [free_port() for _ in range(apis)]
        self.api_urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [self._supervised(f"api-{port}", _API, SLICEWAY_API_PORT=str(port)) for port in ports]
        pooled = 2 if workers >= _POOL_FROM else 0
        self.workers = [self._supervised(f"worker-{n}", None) for n in range(1, workers - pooled + 1)]
        self.parents = [self._supervised("pool", PARENT, SLICEWAY_WORKER_PROCESSES=str(pooled))] if pooled else []
        self.supervisor = Supervisor([*self.apis, *self.workers, *self.parents])
        self.supervisor.start()
        ready = wait_until(
            lambda: self.apis_answer() and self.live_workers() >= workers, timeout_s=_READY_TIMEOUT_S, poll_s=0.1
        )
        assert ready, f"not up within {_READY_TIMEOUT_S:g} s: {folder}"

    def _supervised(self, name: str, argv: tuple[str, ...] | None, **settings: str) -> SupervisedProcess:
        return SupervisedProcess(name, self.environ | settings, self.folder, argv)

    def _link(self, bytes_per_s: int | None) -> Relay | None:
        """Put a relay with this bandwidth before the store; it buffers bytes that it has not sent yet."""
        if bytes_per_s is None:
            return None
        return Relay(int(self.store.url.rpartition(":")[2]), Link(bytes_per_s, _SOCKET_BUFFER_BYTES, buffers=True))

    @property
    def store_url(self) -> str:
        """The URL of the store for the workers."""
        return self.store.url if self.link is None else f"http://127.0.0.1:{self.link.port}"

    def _environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        main = profile(self.store_url, slice_bytes=REQUESTED_SLICE_BYTES, answer_timeout_s=10)
        stores = write_stores(self.folder / "stores.toml", {"main": main}, {"media": {"path": self.media}})
        usual = {"SLICEWAY_WORKER_THREADS": str(THREADS), "SLICEWAY_LOG_LEVEL": "info"}
        return system_environ(self.database.url, self.valkey.url, stores, **usual | dict(settings))

    # queries

    def sql(self, statement: str, **params: Any) -> list[Row]:
        """Run one statement on a connection of its own and return its rows."""
        return self.database.run(statement, **params)

    def sql_if_up(self, statement: str, **params: Any) -> list[Row]:
        """Run one statement; no rows while the database is down."""
        try:
            return self.sql(statement, **params)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            return []

    def live_workers(self) -> int:
        """How many workers are live by the database."""
        rows = self.sql_if_up("SELECT count(*) AS n FROM worker WHERE ended_at IS NULL")
        return int(rows[0]["n"]) if rows else 0

    def leader(self) -> int | None:
        """The process of the leader; None if there is none or the database is down."""
        query = "SELECT w.name FROM leadership l JOIN worker w ON w.id = l.holder WHERE l.until > now()"
        rows = self.sql_if_up(query)
        return int(rows[0]["name"].rpartition(":")[2]) if rows else None

    def worker_pids(self) -> list[int]:
        """All worker processes that run now, pool children included."""
        return _pids(self.workers) + self.pool_children()

    def pool_children(self) -> list[int]:
        """The children of the pool parents."""
        return [pid for each in self.parents if each.process.alive for pid in each.process.children()]

    def parent_pids(self) -> list[int]:
        """The pool parents that run now."""
        return _pids(self.parents)

    def api_pids(self) -> list[int]:
        """The API processes that run now."""
        return _pids(self.apis)

    def apis_answer(self) -> bool:
        """Whether all API processes are ready to enqueue."""
        try:
            return all(httpx.get(f"{url}/readyz", trust_env=False).is_success for url in self.api_urls)
        except httpx.HTTPError:
            return False

    def api(self, url: str, tenant: str) -> httpx.Client:
        """A client of one API process."""
        return api_client(url, self.keys[tenant], timeout_s=15)

    # the end

    def logs(self) -> list[Path]:
        """The logs of everything."""
        return sorted(self.folder.glob("*.log"))

    def close(self) -> None:
        """Stop everything, whatever state it is in."""
        self.supervisor.stop()
        for pid in processes_with("SLICEWAY_STORES_FILE", self.environ["SLICEWAY_STORES_FILE"]):
            with suppress(ProcessLookupError):  # children of a pool parent that was killed
                os.kill(pid, signal.SIGKILL)
        if self.link is not None:
            self.link.close()
        self.store.stop()
        self.valkey.kill()
        self.postgres.stop("immediate")


_API = (sys.executable, "-m", "api")


def _pids(supervised: list[SupervisedProcess]) -> list[int]:
    return [each.process.pid for each in supervised if each.process.alive]


def _make_database(postgres: EmbeddedPostgres) -> TestDatabase:
    """A migrated database with the triggers of the checker and of the log of claims."""
    database = TestDatabase(postgres, make_template(postgres))
    database.run(_CLAIMS.read_text())
    install(database.url)
    return database
