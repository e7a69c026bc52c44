"""An installation whose workers and API reach every server through a proxy."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from tests.faults.proxy import Proxy
from tests.support.installation import Installation
from tests.support.processes import PARENT
from tests.support.store import SLICE_BYTES
from worker.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.job import Job
    from tests.support.processes import Worker
    from tests.support.stores_file import Table

#: A tenth of the shipped times, except for a death: four seconds, since the machine may be loaded.
SCALED = {
    "SLICEWAY_TIME_SCALE": "0.1",
    "SLICEWAY_HEARTBEAT_S": "2",
    "SLICEWAY_DEAD_AFTER_S": "40",
    "SLICEWAY_LEAD_S": "10",
    "SLICEWAY_WORKER_PROCESSES": "1",
}


class Server(StrEnum):
    """The servers of a worker."""

    STORE = "store"
    POSTGRES = "postgres"
    VALKEY = "valkey"


_UNCHECKED = (
    "import worker.runtime.bootsteps as w; w.check_options = lambda _: None; from celery.__main__ import main; main()"
)
LEADS_ONLY = (sys.executable, "-c", _UNCHECKED, "-A", "worker", "worker", "-Q", "elsewhere")
"""A process that leads and runs no tasks; the product refuses these options."""


class Network(Installation):
    """Two kinds of workers: `far` ones reach each server through its proxy in `proxies`, `near` ones directly.

    The store has one address, so that all workers use its proxy. The API reaches Postgres through `api_proxy`, the test
    directly by `direct`.
    """

    @property
    def store_url(self) -> str:
        """The URL of the store's proxy."""
        return f"http://127.0.0.1:{self.proxies[Server.STORE].port}"

    def stores(self) -> dict[str, Table]:
        """The profiles of the stores file, with short timeouts."""
        timeouts: Table = {"answer_timeout_s": 2, "connect_timeout_s": 1, "low_speed_bytes_per_s": 1048576}
        return {name: fields | timeouts for name, fields in super().stores().items()}

    def _environ(self) -> dict[str, str]:
        database, broker = self.database.url, self.broker_url
        urls = {Server.STORE: self.store.url, Server.POSTGRES: database, Server.VALKEY: broker}
        ports = {server: make_url(url).port or 0 for server, url in urls.items()}
        self.proxies = {server: Proxy(port) for server, port in ports.items()}
        self.api_proxy, self.store_proxy = Proxy(ports[Server.POSTGRES]), Proxy(ports[Server.STORE])
        self.direct = Database(database, pool_size=1, application="tests")
        self._by_name: dict[str, Worker] = {}
        direct = {"SLICEWAY_DATABASE_URL": database, "SLICEWAY_BROKER_URL": broker}
        through = {
            "SLICEWAY_DATABASE_URL": _via(database, self.proxies[Server.POSTGRES]),
            "SLICEWAY_BROKER_URL": _via(broker, self.proxies[Server.VALKEY]),
        }
        environ = super()._environ() | SCALED
        self._near, self._far = environ | direct, environ | through
        return environ | direct | {"SLICEWAY_DATABASE_URL": _via(database, self.api_proxy)}

    def far(self, **settings: str) -> Worker:
        """The only worker: a `sliceway worker` behind the proxies; reused by the next test."""
        self._stop_others("far")
        return self._worker("far", self._far | settings)

    def near(self, **settings: str) -> Worker:
        """One more `sliceway worker`, which reaches broker and database directly."""
        return self._worker("near", self._near | settings)

    def _stop_others(self, name: str) -> None:
        for other in [other for other in self._by_name if other != name]:
            self._by_name.pop(other).stop()

    def with_store_proxy(self) -> Worker:
        """The only worker: a `sliceway worker` with `store_proxy` as the forward proxy of its store."""
        self._stop_others("with store proxy")
        proxy = {"proxy": f"http://127.0.0.1:{self.store_proxy.port}"}
        stores = {name: fields | proxy for name, fields in self.stores().items()}
        changed = self.stores_file("with-store-proxy", stores)
        return self._worker("with store proxy", self._near | {"SLICEWAY_STORES_FILE": changed})

    def leader(self) -> Worker:
        """One more process, which reaches every server directly, leads, and runs no tasks."""
        leader = self._worker("leader", self._near, LEADS_ONLY)
        self.sql(
            """UPDATE leadership SET term = term + 1, until = now() + interval '5 s',
                                     holder = (SELECT id FROM worker WHERE name LIKE %(name)s)""",
            name=f"%:{leader.pid}",
        )
        self.until(lambda: "dispatcher.leads" in leader.text(), "the new leader")
        return leader

    def _worker(self, name: str, environ: Mapping[str, str], argv: Sequence[str] = PARENT) -> Worker:
        worker = self._by_name.get(name)
        if worker is None or not worker.alive or worker.environ != dict(environ):
            if worker is not None:
                worker.stop()
            worker = self._by_name[name] = self.start_worker(environ, argv)
        assert self.known(worker), worker.text()
        return worker

    def calm(self) -> None:
        """End all faults."""
        for proxy in (*self.proxies.values(), self.api_proxy, self.store_proxy):
            proxy.heal()
        super().calm()

    def close(self) -> None:
        """Stop everything."""
        self.direct.close()
        super().close()
        for proxy in (*self.proxies.values(), self.api_proxy, self.store_proxy):
            proxy.close()


def half_sent(site: Installation) -> Job:
    """A job of four slices whose last missing slice is held by the store."""
    key = site.fresh_key()
    site.store.hold("data", key, offset=SLICE_BYTES, count=1)
    job = site.enqueue(4 * SLICE_BYTES, key)
    site.store.held("data", key)
    site.until(lambda: job.row["slices_left"] == 1, "all other slices")
    return job


def _via(url: str, proxy: Proxy) -> str:
    return make_url(url).set(port=proxy.port).render_as_string(hide_password=False)
