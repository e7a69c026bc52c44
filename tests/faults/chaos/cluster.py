"""A whole Sliceway in processes that can all be killed: servers, store, API processes and workers."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from tests.faults.chaos.errands import WISH_BYTES
from tests.faults.chaos.posts import Keeper, Post, processes_with
from tests.faults.chaos.store import ChaosStore
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
#: Of how many workers on two of them are children of a pool parent.
_POOL_FROM = 4
_READY_S = 60.0
_SOCKET_BUFFER_BYTES = 32 * 1024
_CLAIMS = Path(__file__).with_name("claims.sql")


class Cluster:
    """Servers of this run's own, API processes, and workers: some alone, two as children of a pool parent."""

    def __init__(
        self, folder: Path, *, workers: int, apis: int, settings: Mapping[str, str], link_bytes_per_s: int | None = None
    ) -> None:
        """Start all of it and wait until it is ready.

        Args:
            folder: where everything lives; an unprivileged account must be able to pass through.
            workers: worker processes.
            apis: API processes.
            settings: of every process, beside the addresses.
            link_bytes_per_s: what the link between the workers and the store carries; None: as much as they send.
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
        self.apis = [self._post(f"api-{port}", _API, SLICEWAY_API_PORT=str(port)) for port in ports]
        pooled = 2 if workers >= _POOL_FROM else 0
        self.workers = [self._post(f"worker-{n}", None) for n in range(1, workers - pooled + 1)]
        self.parents = [self._post("pool", PARENT, SLICEWAY_WORKER_PROCESSES=str(pooled))] if pooled else []
        self.keeper = Keeper([*self.apis, *self.workers, *self.parents])
        self.keeper.start()
        ready = wait_until(
            lambda: self.apis_answer() and self.live_workers() >= workers, timeout_s=_READY_S, poll_s=0.1
        )
        assert ready, f"not up within {_READY_S:g} s: {folder}"

    def _post(self, name: str, argv: tuple[str, ...] | None, **settings: str) -> Post:
        return Post(name, self.environ | settings, self.folder, argv)

    def _link(self, bytes_per_s: int | None) -> Relay | None:
        """Put a link before the store that carries no more than that; what it has taken it has not yet carried."""
        if bytes_per_s is None:
            return None
        return Relay(int(self.store.url.rpartition(":")[2]), Link(bytes_per_s, _SOCKET_BUFFER_BYTES, buffers=True))

    @property
    def store_url(self) -> str:
        """Where the workers find the store."""
        return self.store.url if self.link is None else f"http://127.0.0.1:{self.link.port}"

    def _environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        main = profile(self.store_url, slice_bytes=WISH_BYTES, answer_timeout_s=10)
        stores = write_stores(self.folder / "stores.toml", {"main": main}, {"media": {"path": self.media}})
        usual = {"SLICEWAY_WORKER_THREADS": str(THREADS), "SLICEWAY_LOG_LEVEL": "info"}
        return system_environ(self.database.url, self.valkey.url, stores, **usual | dict(settings))

    # what is known

    def sql(self, statement: str, **params: Any) -> list[Row]:
        """Run one statement on a connection of its own and return its rows."""
        return self.database.run(statement, **params)

    def ask(self, statement: str, **params: Any) -> list[Row]:
        """The same; nothing where the database is away."""
        try:
            return self.sql(statement, **params)
        except psycopg.Error:
            return []

    def live_workers(self) -> int:
        """How many workers say that they live."""
        rows = self.ask("SELECT count(*) AS n FROM worker WHERE ended_at IS NULL")
        return int(rows[0]["n"]) if rows else 0

    def leader(self) -> int | None:
        """The process that leads the dispatch; None if the database is away or has no leader."""
        query = "SELECT w.name FROM leadership l JOIN worker w ON w.id = l.holder WHERE l.until > now()"
        rows = self.ask(query)
        return int(rows[0]["name"].rpartition(":")[2]) if rows else None

    def worker_pids(self) -> list[int]:
        """All worker processes that run now, pool children included."""
        alone = [post.holder.pid for post in self.workers if post.holder.alive]
        return alone + self.pool_children()

    def pool_children(self) -> list[int]:
        """The children of the pool parents."""
        return [pid for post in self.parents if post.holder.alive for pid in post.holder.children()]

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
        self.keeper.dismiss()
        for pid in processes_with("SLICEWAY_STORES_FILE", self.environ["SLICEWAY_STORES_FILE"]):
            with suppress(ProcessLookupError):  # children of a pool parent that was killed
                os.kill(pid, signal.SIGKILL)
        if self.link is not None:
            self.link.close()
        self.store.stop()
        self.valkey.kill()
        self.postgres.stop("immediate")


_API = (sys.executable, "-m", "api")


def _make_database(postgres: EmbeddedPostgres) -> TestDatabase:
    """A migrated database with the triggers that write down what must never happen, and when what was claimed."""
    database = TestDatabase(postgres, make_template(postgres))
    database.run(_CLAIMS.read_text())
    install(database.url)
    return database
