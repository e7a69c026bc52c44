"""The doctor's findings on real servers, each with one fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from psycopg import sql

from worker.config.broker_url import BrokerUrl
from worker.config.profiles import Profiles
from worker.config.settings import load_settings
from worker.db.migrate import migrate
from worker.db.pool import conninfo
from worker.doctor import database as database_check
from worker.doctor.database import database
from worker.doctor.findings import Level
from worker.doctor.servers import broker
from worker.local.postgres import EmbeddedPostgres
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from worker.doctor.findings import Finding

Findings = dict[str, tuple[Level, str]]


def by_check(findings: Iterable[Finding]) -> Findings:
    return {each.check: (each.level, f"{each.text}; {each.advice}") for each in findings}


def examine(url: str, **settings: str) -> Findings:
    environ = {"SLICEWAY_DATABASE_URL": url, "SLICEWAY_BROKER_URL": "redis://127.0.0.1:1/0"} | settings
    return by_check(database(load_settings(environ), Profiles(stores={}, roots={})))


@pytest.fixture
def here(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(conninfo(database_url), autocommit=True) as connection:
        yield connection


def set_for_database(connection: psycopg.Connection, setting: str, value: str) -> None:
    statement = sql.SQL("ALTER DATABASE {} SET {} = {}")
    names = sql.Identifier(connection.info.dbname), sql.Identifier(setting), sql.Literal(value)
    connection.execute(statement.format(*names))


def test_a_database_that_takes_no_writes(database_url: str, here: psycopg.Connection) -> None:
    assert examine(database_url)["database writes"][0] is Level.OK
    set_for_database(here, "default_transaction_read_only", "on")
    level, text = examine(database_url)["database writes"]
    assert (level, "default_transaction_read_only is on" in text) == (Level.FAILED, True)


def answers(url: str) -> bool:
    try:
        psycopg.connect(conninfo(url)).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_standby(server_folder: Path) -> None:
    server = EmbeddedPostgres(server_folder / "standby", durable=False)
    server.start()
    migrate(server.url)
    server.stop()
    try:
        (server.folder / "data" / "standby.signal").touch()
        server.launch()
        assert wait_until(lambda: answers(server.url), timeout_s=30)
        level, text = examine(server.url)["database writes"]
    finally:
        server.stop("immediate")
    assert (level, "it is a standby" in text, "primary" in text) == (Level.FAILED, True, True)


def test_a_server_that_loses_commits_in_a_crash(database_url: str) -> None:
    level, text = examine(database_url)["database durability"]
    assert (level, "fsync, full_page_writes off" in text) == (Level.FAILED, True)
    assert "Set fsync and full_page_writes to on." in text


def test_what_a_session_has_through_each_url(database_url: str, here: psycopg.Connection) -> None:
    for setting, value in (("DateStyle", "German"), ("synchronous_commit", "off"), ("search_path", "media")):
        set_for_database(here, setting, value)
    assert examine(database_url)["database session"][0] is Level.OK  # our own connections have what they need
    behind_pooler = examine(database_url, SLICEWAY_DATABASE_DIRECT_URL=f"{database_url}?options=-csearch_path%3Dpublic")
    level, text = behind_pooler["database session"]
    assert (level, "synchronous_commit is off and should be on" in text) == (Level.FAILED, True)
    assert "DateStyle is German, DMY and should be ISO" in text
    assert "sliceway migrate" in text
    assert behind_pooler["database session, directly"][0] is Level.OK
    level, text = behind_pooler["database schema"]
    assert (level, "search_path is media through the pooler and public past it" in text) == (Level.FAILED, True)


def test_a_database_that_cannot_keep_every_key(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(conninfo(postgres.url_of("postgres")), autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            level, text = examine(postgres.url_of("latin"))["database encoding"]
        finally:
            connection.execute("DROP DATABASE latin WITH (FORCE)")
    assert (level, "it keeps LATIN1" in text, "ENCODING 'UTF8'" in text) == (Level.FAILED, True, True)


def test_a_transaction_that_stays_open(
    database_url: str, here: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with here.transaction():
        here.execute("SELECT 1")
        assert "database transactions" not in examine(database_url)
        monkeypatch.setattr(database_check, "LONG_S", 0.0)
        level, text = examine(database_url)["database transactions"]
    assert (level, f"pg_terminate_backend({here.info.backend_pid})" in text) == (Level.NOTE, True)
    assert "database transactions" not in examine(database_url)


def test_a_database_of_a_newer_release(database_url: str, here: psycopg.Connection) -> None:
    here.execute("UPDATE alembic_version SET version_num = '9999'")
    level, text = examine(database_url)["migrations"]
    assert (level, "does not know" in text) == (Level.FAILED, True)


def test_too_few_connections(database_url: str, here: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examine(database_url)["database connections"][0] is Level.OK
    here.execute("INSERT INTO worker (id, name, slots, roots) VALUES (gen_random_uuid(), 'a:1', 100, '{}')")
    level, text = examine(database_url)["database connections"]
    assert (level, "may open 242" in text) == (Level.NOTE, True)
    behind_pooler = examine(database_url, SLICEWAY_DATABASE_DIRECT_URL=database_url)
    assert behind_pooler["database connections"][0] is Level.OK
    monkeypatch.setattr(database_check, "_NEARLY_ALL", 0.0)
    level, text = examine(database_url)["database connections"]
    assert (level, "max_connections" in text) == (Level.FAILED, True)


def test_a_broker_that_is_nearly_full(broker_url: str) -> None:
    assert "broker room" not in by_check(broker(BrokerUrl.of(broker_url)))
    levels = []
    with redis.Redis.from_url(broker_url) as client:
        used = int(client.info("memory")["used_memory"])
        try:
            for part in (0.3, 0.8, 0.95):
                client.config_set("maxmemory", str(int(used / part)))
                levels.append(by_check(broker(BrokerUrl.of(broker_url)))["broker room"][0])
        finally:
            client.config_set("maxmemory", "0")
    assert levels == [Level.OK, Level.NOTE, Level.FAILED]
