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
from psycopg import sql

from tests.faults.chaos.errands import WISH_BYTES
from tests.faults.chaos.posts import Keeper, Post, processes_with
from tests.faults.chaos.store import ChaosStore
from tests.faults.checker import install
from tests.support.database import TestDatabase
from tests.support.processes import PARENT
from tests.support.relay import Link, Relay
from tests.support.store import APPID, BUCKET, SECRET_ID, SECRET_KEY
from worker.db.migrate import migrate
from worker.db.pool import Database, conninfo
from worker.jobs.api_keys import Scope, create_key
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
_STORES = """
[stores.main]
protocol = "cos-json"
endpoint = "{url}"
appid = "{appid}"
bucket = "{bucket}"
secret_id = "{secret_id}"
secret_key = "{secret_key}"
slice_bytes = {slice_bytes}
answer_timeout_s = {answer_timeout_s}

[roots.media]
path = "{media}"
"""


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
        self.keys = _make_keys(self.database.url)
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
        stores = self.folder / "stores.toml"
        words = {"url": self.store_url, "appid": APPID, "bucket": BUCKET, "slice_bytes": WISH_BYTES}
        secrets = {"secret_id": SECRET_ID, "secret_key": SECRET_KEY}
        stores.write_text(_STORES.format(**words, **secrets, media=self.media, answer_timeout_s=10))
        given = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWAY_")}
        addresses = {
            "SLICEWAY_DATABASE_URL": self.database.url,
            "SLICEWAY_BROKER_URL": self.valkey.url,
            "SLICEWAY_STORES_FILE": str(stores),
        }
        ways = {
            "SLICEWAY_WORKER_THREADS": str(THREADS),
            "SLICEWAY_LOG_FORMAT": "text",
            "SLICEWAY_LOG_LEVEL": "info",
            "SLICEWAY_WORKER_NICE": "0",  # those that yield get next to nothing on a loaded machine, and count as dead
            "PYTHONUNBUFFERED": "1",
        }
        return given | addresses | ways | dict(settings)

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
        """The process that leads the dispatch, if anybody knows."""
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
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=15)

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
    template = "sliceway_template"
    with psycopg.connect(conninfo(postgres.url_of("postgres")), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(template)))
    migrate(postgres.url_of(template))
    database = TestDatabase(postgres, template)
    database.run(_CLAIMS.read_text())
    install(database.url)
    return database


def _make_keys(url: str) -> dict[str, str]:
    database = Database(url, pool_size=1, application="tests")
    try:
        with database.transaction() as tx:
            return {tenant: create_key(tx, tenant, Scope)[1] for tenant in TENANTS}
    finally:
        database.close()
