"""The API in a thread of this process, keys for it, and clients with a key."""

from __future__ import annotations

import sys
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from api.app import server
from tests.support.deadline import DEADLINE_S, until
from worker.db.pool import Database
from worker.jobs.api_keys import Scope, create_key
from worker.local.ports import free_port
from worker.local.process import Child

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from worker.config.settings import Settings


class ApiThread:
    """The API, in a thread; listens at `port` as soon as it is made."""

    def __init__(self, settings: Settings) -> None:
        self.server = server(settings)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        until(lambda: self.server.started, "the start of the API", alive=self._thread.is_alive)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self.server.should_exit = True
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the API did not stop"


@contextmanager
def api_process(environ: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run the API in a process of its own, as `sliceway api` does; yields its URL as soon as it is ready."""
    port = free_port()
    child = Child([sys.executable, "-m", "api"], log=log, env={**environ, "SLICEWAY_API_PORT": str(port)})
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False, timeout=DEADLINE_S).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    try:
        until(is_ready, "the API's start", alive=lambda: child.poll() is None)
        yield url
    finally:
        child.stop(grace_s=DEADLINE_S)


def create_api_key(database_url: str, tenant: str = "acme", scopes: Iterable[Scope] = Scope) -> str:
    """Make a key for a tenant; returns its text."""
    with closing(Database(database_url, pool_size=1, application="tests")) as database, database.transaction() as tx:
        return create_key(tx, tenant, scopes)[1]


def api_client(url: str, key: str, *, timeout_s: float = 60, **options: Any) -> httpx.Client:
    """Return a client of an API that has a key; `options` are more of `httpx.Client`'s."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=timeout_s, **options)
