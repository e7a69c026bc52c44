"""An installation whose workers, and whose API, reach every server over a bad network of their own."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from tests.faults.proxy import Proxy
from tests.support.installation import Installation
from tests.support.processes import PARENT
from worker.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.job import Job
    from tests.support.processes import Worker

#: A tenth of the shipped times, but for a death: four seconds, since a test machine may be busy.
SCALED = {
    "SLICEWAY_TIME_SCALE": "0.1",
    "SLICEWAY_HEARTBEAT_S": "2",
    "SLICEWAY_DEAD_AFTER_S": "40",
    "SLICEWAY_LEAD_S": "10",
    "SLICEWAY_WORKER_PROCESSES": "1",
}


class Server(StrEnum):
    """What a worker talks to."""

    STORE = "store"
    POSTGRES = "postgres"
    VALKEY = "valkey"


_UNCHECKED = (
    "import worker.runtime.bootsteps as w; w.check_options = lambda _: None; from celery.__main__ import main; main()"
)
LEADS_ONLY = (sys.executable, "-c", _UNCHECKED, "-A", "worker", "worker", "-Q", "elsewhere")
"""A process that leads and takes no work, which the product refuses to be."""


class Network(Installation):
    """Two kinds of workers: `far` ones reach each server through its proxy in `lines`, `near` ones directly.

    The store has one address for all, so its line is everybody's. The API's way to Postgres is `door`, the test's own
    is `direct`.
    """

    patience = "answer_timeout_s = 2\nconnect_timeout_s = 1\nlow_speed_bytes_per_s = 1048576"

    @property
    def store_url(self) -> str:
        """Where workers find the store: behind its proxy."""
        return f"http://127.0.0.1:{self.lines[Server.STORE].port}"

    def _environ(self) -> dict[str, str]:
        broker = make_url(self.broker_url)
        database = make_url(self.database.url)
        ports = {
            Server.STORE: make_url(self.store.url).port,
            Server.POSTGRES: database.port,
            Server.VALKEY: broker.port,
        }
        self.lines = {server: Proxy(port) for server, port in ports.items() if port is not None}
        self.door, self.side = Proxy(ports[Server.POSTGRES] or 0), Proxy(ports[Server.STORE] or 0)
        self.direct = Database(self.database.url, pool_size=1, application="tests")
        self._kept: dict[str, Worker] = {}
        direct = {
            "SLICEWAY_DATABASE_URL": database.render_as_string(hide_password=False),
            "SLICEWAY_BROKER_URL": broker.render_as_string(hide_password=False),
        }
        through = {
            "SLICEWAY_DATABASE_URL": _via(database.render_as_string(hide_password=False), self.lines[Server.POSTGRES]),
            "SLICEWAY_BROKER_URL": _via(broker.render_as_string(hide_password=False), self.lines[Server.VALKEY]),
        }
        environ = super()._environ() | SCALED
        self._near, self._far = environ | direct, environ | through
        return environ | direct | {"SLICEWAY_DATABASE_URL": _via(direct["SLICEWAY_DATABASE_URL"], self.door)}

    def far(self, **settings: str) -> Worker:
        """A `sliceway worker` behind the proxies, the only worker there is; kept from test to test."""
        self._alone("far")
        return self._keep("far", self._far | settings)

    def near(self, **settings: str) -> Worker:
        """One more `sliceway worker`, that reaches broker and database directly."""
        return self._keep("near", self._near | settings)

    def _alone(self, name: str) -> None:
        for other in [other for other in self._kept if other != name]:
            self._kept.pop(other).stop()

    def aside(self) -> Worker:
        """The only `sliceway worker`, which reaches the store, and it only, through `side`, as a forward proxy."""
        self._alone("aside")
        proxy = {"proxy": f"http://127.0.0.1:{self.side.port}"}
        stores = {name: fields | proxy for name, fields in self.stores().items()}
        return self._keep("aside", self._near | {"SLICEWAY_STORES_FILE": self.stores_file("aside", stores)})

    def leader(self) -> Worker:
        """One more process, that reaches everything directly, leads, and takes no work itself."""
        leader = self._keep("leader", self._near, LEADS_ONLY)
        self.sql(
            """UPDATE leadership SET term = term + 1, until = now() + interval '5 s',
                                     holder = (SELECT id FROM worker WHERE name LIKE %(name)s)""",
            name=f"%:{leader.pid}",
        )
        self.until(lambda: "dispatcher.leads" in leader.text(), "its leading")
        return leader

    def _keep(self, name: str, environ: Mapping[str, str], argv: Sequence[str] = PARENT) -> Worker:
        kept = self._kept.get(name)
        if kept is None or not kept.alive or kept.environ != dict(environ):
            if kept is not None:
                kept.stop()
            kept = self._kept[name] = self.start_worker(environ, argv)
        assert self.known(kept), kept.text()
        return kept

    def half_sent(self, size_bytes: int, slice_held: int) -> Job:
        """A job of which the store holds back one slice, and nothing else is missing."""
        key = self.fresh_key()
        self.store.hold("data", key, offset=slice_held, count=1)
        job = self.enqueue(size_bytes, key)
        self.store.held("data", key)
        self.until(lambda: job.row["slices_left"] == 1, "all other slices")
        return job

    def calm(self) -> None:
        """Undo what the test has done to its surroundings."""
        for line in (*self.lines.values(), self.door, self.side):
            line.heal()
        super().calm()

    def close(self) -> None:
        """Stop everything."""
        self.direct.close()
        super().close()
        for line in (*self.lines.values(), self.door, self.side):
            line.close()


def _via(url: str, line: Proxy) -> str:
    return make_url(url).set(port=line.port).render_as_string(hide_password=False)
