"""Passwords of every printable character, and a broker that speaks TLS only: every role goes by the same parts."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import make_url

from tests.support.certificate import Authority
from tests.support.deadline import DEADLINE_S
from tests.support.installation import MIB, Installation
from tests.support.tls import CLIENT_HELLO, Recorder, TlsRelay
from worker.db.pool import conninfo
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.fixtures import Ground, Servers

PASSWORD = "fake secret%20" + "".join(char for char in string.printable if char.isprintable())
ENCODED = quote(PASSWORD, safe="")
SECRET = "fake-secret-broker"


class HardInstallation(Installation):
    """Whose database and broker have such a password, and whose broker speaks TLS and asks for a certificate."""

    def _environ(self) -> dict[str, str]:
        self.authority = Authority(self.folder)
        role = f"hard_{os.getpid()}"
        admin = conninfo(self.database.url)
        with psycopg.connect(admin, autocommit=True) as connection:
            name, password = sql.Identifier(role), sql.Literal(PASSWORD)
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(name))
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(name, password))
        with redis.Redis.from_url(self.broker_url) as client:
            client.execute_command("ACL", "SETUSER", role, "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        broker, database = make_url(self.broker_url), make_url(self.database.url)
        self.relay = TlsRelay(
            broker.port or 0, self.authority.identity("localhost"), client_authority=self.authority.file
        )
        self.role = role
        return super()._environ() | {
            "SLICEWAY_DATABASE_URL": f"postgres://{role}:{ENCODED}@127.0.0.1:{database.port}/{database.database}",
            "SLICEWAY_BROKER_URL": f"rediss://{role}:{ENCODED}@localhost:{self.relay.port}/{broker.database}",
            "SLICEWAY_BROKER_CA_FILE": str(self.authority.file),
            "SLICEWAY_BROKER_CERT_FILE": str(self.authority.identity("worker.test")),
            "SLICEWAY_FLOWER_BASIC_AUTH": "operator:fake-secret-flower",
        }

    def close(self) -> None:
        """Take it down, with the role that it has made."""
        super().close()
        self.relay.close()
        with psycopg.connect(conninfo(self.postgres.url_of("postgres")), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(self.role)))


@pytest.fixture(scope="module")
def hard_ground(servers: Servers) -> Iterator[Ground[HardInstallation]]:
    yield from servers.ground(HardInstallation)


@pytest.fixture
def site(hard_ground: Ground[HardInstallation]) -> Iterator[HardInstallation]:
    """An installation that is hard to reach."""
    yield from hard_ground.lend()


def sliceway(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "worker.cli", *arguments]
    environ = {**environ, "SLICEWAY_LOG_LEVEL": "info"}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def doctor(environ: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], str]:
    done = sliceway(environ, "doctor", "--json")
    return {each["check"]: each for each in json.loads(done.stdout)}, done.stdout + done.stderr


def test_every_role_gets_through_with_such_passwords(site: HardInstallation) -> None:
    [worker] = site.workers(1)
    migrated = sliceway(site.environ, "migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    site.until(lambda: "sliceway listen" in applications(site), "the dispatcher listens")
    job = site.enqueue(2 * MIB)
    job.succeeds()
    assert applications(site) >= {"sliceway listen", "sliceway api"}
    found, said = doctor(site.environ)
    assert {found[check]["level"] for check in ("database", "database session", "migrations", "broker")} == {"ok"}
    log = worker.text()
    assert "dispatcher.polls" not in log
    for text in (said, log, json.dumps(job.view)):
        assert not [each for each in (PASSWORD, PASSWORD[:20], ENCODED, ENCODED[:20]) if each in text]


def applications(site: HardInstallation) -> set[str]:
    """What the role's connections are for."""
    query = "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE usename = %(role)s"
    return {row["name"] for row in site.sql(query, role=site.role)}


def test_flower_shows_the_queue_of_such_a_broker(site: HardInstallation) -> None:
    site.workers(1)
    with flower(site.environ, site) as browser:
        assert wait_until(lambda: "sliceway" in browser.get("/broker").text, timeout_s=DEADLINE_S, poll_s=0.1)
        workers = browser.get("/api/workers", params={"status": "true"})
        assert workers.is_success
    assert ENCODED not in (site.folder / "flower.log").read_text()


class flower:  # noqa: N801 - used as a function
    """A Flower that `sliceway flower` started, and a browser that has its password."""

    def __init__(self, environ: Mapping[str, str], site: Installation) -> None:
        port = free_port()
        given = {**environ, "SLICEWAY_FLOWER_PORT": str(port)}
        self._log = site.folder / "flower.log"
        self._child = Child([sys.executable, "-m", "worker.cli", "flower"], log=self._log, env=given)
        auth = ("operator", "fake-secret-flower")
        self._browser = httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=auth, trust_env=False, timeout=60)

    def __enter__(self) -> httpx.Client:
        assert wait_until(self._serves, timeout_s=DEADLINE_S, poll_s=0.1), self._log.read_text()
        return self._browser

    def environ(self) -> list[str]:
        """What it runs with."""
        return Path(f"/proc/{self._child.pid}/environ").read_text().split("\0")

    def _serves(self) -> bool:
        try:
            return self._browser.get("/healthcheck").is_success
        except httpx.HTTPError:
            return False

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._child.stop()


@pytest.mark.parametrize(
    ("host", "trusts", "said"),
    [
        ("localhost", False, "the broker's certificate is not trusted: self-signed certificate"),
        ("127.0.0.1", True, "the broker's certificate is for another host: IP address mismatch"),
    ],
)
def test_a_worker_says_at_start_why_it_does_not_speak_to_the_broker(
    site: HardInstallation, host: str, trusts: bool, said: str
) -> None:
    url = f"rediss://{site.role}:{ENCODED}@{host}:{site.relay.port}/0"
    changed = {"SLICEWAY_BROKER_URL": url} | ({} if trusts else {"SLICEWAY_BROKER_CA_FILE": ""})
    worker = site.start_worker(site.environ | changed)
    site.until(lambda: "broker.away" in worker.text(), "a log line about the broker")
    [line] = [line for line in worker.text().splitlines() if "broker.away" in line]
    assert (said in line, "SLICEWAY_BROKER_" in line) == (True, True)
    worker.stop()
    found, text = doctor(site.environ | changed)
    assert (found["broker"]["level"], said in found["broker"]["text"]) == ("failed", True)
    assert ENCODED not in text + worker.text()


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
def test_the_first_that_leaves_any_role_is_a_client_hello(site: HardInstallation, scheme: str) -> None:
    recorder = Recorder()
    url = f"{scheme}://:{SECRET}@127.0.0.1:{recorder.port}/0"
    environ = site.environ | {"SLICEWAY_BROKER_URL": url}
    worker = site.start_worker(environ)
    site.until(lambda: "consumer: Cannot connect" in worker.text(), "the consumer has tried to reach the broker")
    site.until(lambda: len(recorder.heard) > 4, "the dispatcher has, too")
    worker.stop()
    by_workers = len(recorder.heard)
    with (running := flower(environ, site)) as browser:
        site.until(lambda: len(recorder.heard) > by_workers, "Flower has tried to reach the broker")
        browser.get("/broker")
        asks_over_https = "FLOWER_BROKER_API=https://127.0.0.1:15671/api/" in running.environ()
        assert asks_over_https == (scheme == "amqps")
    by_flower = len(recorder.heard)
    doctor(environ)
    recorder.close()
    assert 1 < by_workers < by_flower < len(recorder.heard)
    assert {each[0] for each in recorder.heard} == {CLIENT_HELLO}
    assert not [each for each in recorder.heard if SECRET.encode() in each]
