"""A wrong profile fails no job, and no failure shows a secret: in no log, row, event, page, answer or argument.

Everything is real, the peers too: proxies and stores that show what they were sent, in every part of an answer.
"""

from __future__ import annotations

import json
import secrets
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from tests.support import echo
from tests.support.certificate import Authority
from tests.support.command import sliceway
from tests.support.flower import FlowerProcess
from tests.support.installation import MIB, Installation
from tests.support.job import JobSpec
from tests.support.leaks import leaked
from tests.support.store import APPID, BUCKET, SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import Servers
    from tests.support.stores_file import Table

#: What a wrong profile leads to. `foul` is none: it refuses the very request, and that fails a job.
WAIT = {
    "forward": "proxy_unusable",
    "tunnel": "proxy_unusable",
    "nameless": "proxy_unusable",
    "untrusted": "tls_unusable",
    "vanished": "tls_unusable",
    "lost": "store_unusable",
    "refusing": "store_unusable",
}


def fresh_secret() -> str:
    """Random, and of what has to be encoded somewhere."""
    return secrets.token_urlsafe(18) + "+/ %&" + secrets.token_urlsafe(12)


class Careless(Installation):
    """An installation whose stores are wrong, each in its way, and show what they are sent."""

    def _environ(self) -> dict[str, str]:
        self.proxy_password, self.flower_password = fresh_secret(), fresh_secret()
        self.secret_id, self.secret_key = fresh_secret().replace("&", ""), fresh_secret()
        proxy_ways = (echo.in_the_reason, echo.in_headers_and_body, echo.in_no_status_line, echo.in_no_header)
        self.proxy = echo.EchoServer(proxy_ways)
        self.refusing = echo.EchoServer((echo.in_an_envelope(403, -97),))
        self.foul = echo.EchoServer((echo.in_an_envelope(400, -5999),))
        self.tls = TlsServer(self.folder)
        (self.folder / "their.key").write_text(self.secret_key)
        return super()._environ() | {"SLICEWAY_FLOWER_BASIC_AUTH": f"me:{self.flower_password}"}

    def stores(self) -> dict[str, Table]:
        """The profiles of the stores file, by name."""
        through = f"http://me:{quote(self.proxy_password, safe='')}@127.0.0.1:{self.proxy.port}"
        encrypted = f"https://localhost:{self.tls.port}"
        stores: dict[str, Table] = {
            "forward": {"endpoint": "http://store.invalid", "proxy": through},
            "tunnel": {"endpoint": "https://store.invalid", "proxy": through},
            "nameless": {"endpoint": "http://store.invalid", "proxy": through.replace("127.0.0.1", "proxy.invalid")},
            "untrusted": {"endpoint": encrypted},
            "vanished": {"endpoint": encrypted, "ca_file": self.tls.authorities},
            "lost": {"endpoint": "http://store.invalid"},
            "refusing": {"endpoint": f"http://127.0.0.1:{self.refusing.port}"},
            "foul": {"endpoint": f"http://127.0.0.1:{self.foul.port}"},
        }
        common = {"protocol": "cos-json", "appid": APPID, "bucket": BUCKET, "slice_bytes": SLICE_BYTES}
        common |= {"secret_id": self.secret_id, "secret_key_file": "their.key"}
        return super().stores() | {name: common | fields for name, fields in stores.items()}

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret of the settings, and what requests were signed with."""
        key = str(self.api.headers["Authorization"]).removeprefix("Bearer ")
        echoed = [each for server in (self.proxy, self.refusing, self.foul) for each in sorted(server.credentials)[:4]]
        return {
            "proxy": self.proxy_password,
            "flower": self.flower_password,
            "secret_id": self.secret_id,
            "secret_key": self.secret_key,
            "API key": key,
            "database": str(httpx.URL(self.database.url).password),
            "broker": str(httpx.URL(self.broker_url).password),
        } | {f"sent {number}": each.removeprefix("Basic ") for number, each in enumerate(echoed)}

    def close(self) -> None:
        super().close()
        for server in (self.proxy, self.refusing, self.foul, self.tls):
            server.close()


class _Silent(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a handshake that the other side gives up."""


class TlsServer:
    """Speaks TLS with a certificate that no authority of the machine has signed."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.identity, self.authorities = authority.identity("localhost"), authority.file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.identity)
        self._server = _Silent(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def careless(servers: Servers) -> Iterator[Careless]:
    site = servers.install(Careless)
    yield site
    site.close()


@pytest.fixture
def flower(careless: Careless) -> Iterator[FlowerProcess]:
    with FlowerProcess(careless, auth=("me", careless.flower_password), lists_workers=False) as started:
        yield started


def command(site: Careless, *arguments: str, **environ: str) -> str:
    """What a command prints, whatever its exit code."""
    done = sliceway(site.environ | environ, *arguments)
    return done.stdout + done.stderr


def arguments(*pids: int) -> str:
    """The arguments of processes, as everyone on the machine may read them."""
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids)


def rows(site: Careless) -> str:
    """Every row of every table that we write, as text."""
    tables = site.sql("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
    found = [site.sql(f"SELECT to_jsonb(t)::text AS row FROM {table['name']} t") for table in tables]  # noqa: S608 - ours
    return "\n".join(row["row"] for each in found for row in each)


def answers(site: Careless, job: str) -> str:
    """Everything that the API says of a job."""
    paths = (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", f"/v1/jobs/{job}/slices", "/v1/jobs", "/readyz")
    return "\n".join(site.api.get(path).text for path in paths)


def pages(client: httpx.Client) -> str:
    """What Flower shows of tasks, workers and broker."""
    tasks: dict[str, Any] = client.get("/api/tasks").raise_for_status().json()
    workers: dict[str, Any] = client.get("/api/workers", params={"refresh": "1"}).json()
    paths = ["/", "/tasks", "/broker", *(f"/task/{task}" for task in tasks), *(f"/worker/{name}" for name in workers)]
    return "\n".join([json.dumps(tasks), json.dumps(workers), *(client.get(path).text for path in paths)])


def test_a_wrong_profile_fails_no_job_and_shows_nothing(careless: Careless, flower: FlowerProcess) -> None:
    [worker] = careless.workers(1)
    careless.tls.authorities.unlink()
    jobs = {}
    for store in [*WAIT, "foul"]:
        for number in range(2):
            path = f"{store}-{number}"
            content = careless.file(path, MIB)
            jobs[path] = careless.submit(JobSpec(path, path, {"store": store}), content)
    careless.until(
        lambda: {row["store"] for row in careless.sql("SELECT store FROM breaker")} == set(WAIT), "every breaker open"
    )
    met = {row["store"]: row["error"] for row in careless.sql("SELECT store, error FROM breaker")}
    assert {store: error["code"] for store, error in met.items()} == WAIT
    assert all(
        "Waiting jobs go on by themselves." in error["advice"] or store == "refusing" for store, error in met.items()
    )
    foul = [job for path, job in jobs.items() if path.startswith("foul")]
    for job in foul:
        assert job.fails() == "store_refused"
    careless.until(lambda: "FAILURE" in flower.client.get("/api/tasks").text, "their failure in Flower")
    waiting = [job for job in jobs.values() if job not in foul]
    careless.until(lambda: {job.state for job in waiting} == {"queued"}, "all others waiting")
    assert {job.view["error"]["code"] for job in waiting} == set(WAIT.values())

    output = {
        "log": worker.text(),
        "log of Flower": flower.log.read_text(),
        "rows": rows(careless),
        "answers": "\n".join(answers(careless, job.id) for job in jobs.values()),
        "pages of Flower": pages(flower.client),
        "doctor": command(careless, "doctor") + command(careless, "doctor", "--json"),
        "stores check": command(careless, "stores", "check"),
        "arguments": arguments(worker.pid, *worker.children(), flower.pid),
    }
    assert "store.unusable" in output["log"]
    assert all(f"store {store}" in output["doctor"] for store in WAIT)
    assert "store_refused" in output["rows"]
    assert "Traceback" in output["pages of Flower"]
    found = {
        (what, where): pieces
        for what, secret in careless.secrets.items()
        for where, text in output.items()
        if (pieces := leaked(secret, text))
    }
    assert found == {}
