"""Passwords of every printable character, and a broker that speaks TLS only: every role goes by the same parts."""

from __future__ import annotations

import json
import os
import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy import make_url

from tests.support.certificate import Authority
from tests.support.command import sliceway
from tests.support.flower import FlowerProcess
from tests.support.installation import MIB, Installation
from tests.support.peer import Server, keep_first_bytes
from tests.support.tls import CLIENT_HELLO, TlsRelay
from worker.db.pool import conninfo

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


def doctor(environ: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], str]:
    done = sliceway({**environ, "SLICEWAY_LOG_LEVEL": "info"}, "doctor", "--json")
    return {each["check"]: each for each in json.loads(done.stdout)}, done.stdout + done.stderr


def test_every_role_gets_through_with_such_passwords(site: HardInstallation) -> None:
    [worker] = site.workers(1)
    migrated = sliceway(site.environ | {"SLICEWAY_LOG_LEVEL": "info"}, "migrate")
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
    with FlowerProcess(site) as flower:
        site.until(lambda: "sliceway" in flower.text("/broker"), "the queue in Flower")
    assert ENCODED not in flower.log.read_text()


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
    recorder = Server(keep_first_bytes)
    url = f"{scheme}://:{SECRET}@127.0.0.1:{recorder.port}/0"
    environ = site.environ | {"SLICEWAY_BROKER_URL": url}
    worker = site.start_worker(environ)
    site.until(lambda: "consumer: Cannot connect" in worker.text(), "the consumer has tried to reach the broker")
    site.until(lambda: len(recorder.heard) > 4, "the dispatcher has, too")
    worker.stop()
    by_workers = len(recorder.heard)
    with FlowerProcess(site, {"SLICEWAY_BROKER_URL": url}, lists_workers=False) as flower:
        site.until(lambda: len(recorder.heard) > by_workers, "Flower has tried to reach the broker")
        flower.client.get("/broker")
        asks_over_https = "FLOWER_BROKER_API=https://127.0.0.1:15671/api/" in flower.environ()
        assert asks_over_https == (scheme == "amqps")
    by_flower = len(recorder.heard)
    doctor(environ)
    recorder.close()
    assert 1 < by_workers < by_flower < len(recorder.heard)
    assert {each[0] for each in recorder.heard} == {CLIENT_HELLO}
    assert not [each for each in recorder.heard if SECRET.encode() in each]
