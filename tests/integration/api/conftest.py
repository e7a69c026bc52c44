"""The API over real HTTP, with a database of its own and a broker that does not exist."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from api.app import server
from tests.support.stores_file import stores_toml
from worker.config.settings import load_settings
from worker.db.pool import Database, conninfo
from worker.jobs.api_keys import Scope, create_key
from worker.jobs.states import FINAL, STEPS, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from api.enqueue_batcher import EnqueueBatcher
    from api.waiters import Waiters
    from tests.support.stores_file import Table
    from worker.config.settings import Settings
    from worker.local.postgres import EmbeddedPostgres

_MAIN: Table = {
    "protocol": "cos-json", "endpoint": "http://cos.example.com", "appid": "1250000000", "bucket": "media",
    "secret_id": "fake-secret-id", "secret_key": "fake-secret-key",
}  # fmt: skip
STORES = stores_toml(
    {
        "main": _MAIN,
        "same-bucket": _MAIN
        | {
            "endpoint": "https://COS.example.com:443/",
            "secret_id": "fake-secret-id-2",
            "secret_key": "fake-secret-key-2",
        },
        "discreet": _MAIN | {"dry_run_sees": "own"},
        "others": _MAIN | {"bucket": "others", "tenants": ["umbrella"]},
    },
    {"media": {"path": "/srv/media"}, "others": {"path": "/srv/others", "tenants": ["umbrella"]}},
)


@dataclass
class Api:
    """A running API, and clients for it."""

    url: str
    settings: Settings
    database: Database
    waiters: Waiters
    enqueue_batcher: EnqueueBatcher
    stop: Callable[[], None]
    connections: Collection[Any]
    _clients: ExitStack = field(default_factory=ExitStack)

    def client(self, tenant: str = "acme", scopes: str = "submit read operate") -> httpx.Client:
        with self.database.transaction() as tx:
            _, text = create_key(tx, tenant, [Scope(scope) for scope in scopes.split()])
        return self.bare(Authorization=f"Bearer {text}")

    def bare(self, **headers: str) -> httpx.Client:
        limits = httpx.Limits(max_connections=None)
        client = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=120, limits=limits)
        return self._clients.enter_context(client)

    def sql(self, statement: str, **params: Any) -> list[dict[str, Any]]:
        with self.database.connection() as connection:
            cursor = connection.execute(statement.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        return int(self.sql(f"SELECT count(*) AS n FROM {table}")[0]["n"])  # noqa: S608 - a test names it

    def move(self, job_id: str, state: str, **columns: Any) -> None:
        """Put a job into a state, without its transitions."""
        step = STEPS[JobState(state)][0]
        columns = {"step": step, "finished_at": datetime.now(UTC) if state in FINAL else None, **columns}
        assignments = "".join(f", {name} = %({name})s" for name in columns)
        statement = f"UPDATE job SET state = %(state)s{assignments} WHERE id = %(job)s"  # noqa: S608 - a test names them
        self.sql(statement, job=job_id, state=state, **columns)


@contextmanager
def running_api(settings: Settings) -> Iterator[Api]:
    api = server(settings)
    thread = threading.Thread(target=api.run)
    thread.start()

    def stop() -> None:
        api.should_exit = True
        thread.join(120)
        assert not thread.is_alive(), "the API did not stop"

    try:
        while not api.started:
            assert thread.is_alive(), "the API did not start"
            thread.join(0.01)
        port = api.servers[0].sockets[0].getsockname()[1]
        with closing(Database(settings.database_url, application="tests")) as database, ExitStack() as clients:
            url, state = f"http://127.0.0.1:{port}", api.server_state
            yield Api(
                url,
                settings,
                database,
                api.app_state.waiters,
                api.app_state.enqueue_batcher,
                stop,
                state.connections,
                clients,
            )
    finally:
        stop()


def settings_of(database_url: str, file: Path, stores: str = STORES, **more: str) -> Settings:
    file.write_text(stores)
    environ = {
        "SLICEWAY_DATABASE_URL": database_url,
        "SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0",
        "SLICEWAY_STORES_FILE": str(file),
        "SLICEWAY_API_PORT": "0",
    }
    return load_settings(environ | more)


@pytest.fixture
def make_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start an API on a database, with some settings changed."""
    with ExitStack() as running:

        def make(database_url: str, **more: str) -> Api:
            return running.enter_context(running_api(settings_of(database_url, tmp_path / "stores.toml", **more)))

        yield make


@pytest.fixture
def own_api(make_api: Callable[..., Api], database_url: str) -> Api:
    """An API and a database of this test alone, which it may break."""
    return make_api(database_url)


@pytest.fixture(scope="session")
def shared_api(
    postgres: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """An API that all tests share."""
    with psycopg.connect(conninfo(postgres.url_of("postgres")), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE api TEMPLATE "{template_database}"'.encode())
    settings = settings_of(postgres.url_of("api"), tmp_path_factory.mktemp("api") / "stores.toml")
    with running_api(settings) as api:
        yield api


@pytest.fixture
def api(shared_api: Api) -> Iterator[Api]:
    """An API with empty tables, which this test does not break."""
    shared_api.sql("TRUNCATE job, slice, event, api_key, breaker, audit, hold, cap, bulk_action")
    with ExitStack() as clients:
        yield replace(shared_api, _clients=clients)


@pytest.fixture
def acme(api: Api) -> httpx.Client:
    """A client of the tenant acme with the scopes `submit`, `read` and `operate`."""
    return api.client()
