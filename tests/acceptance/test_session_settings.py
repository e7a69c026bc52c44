"""A whole upload, and every command beside it, on a database whose sessions are set up against us."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from tests.support.command import sliceway
from tests.support.installation import Installation
from tests.support.job import JobSpec
from tests.support.store import SLICE_BYTES
from worker.db.pool import conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import Servers
    from tests.support.job import Job

Row = dict[str, Any]
FIRST = {
    "IntervalStyle": "iso_8601", "DateStyle": "German", "TimeZone": "Asia/Kathmandu", "client_encoding": "GBK",
    "default_transaction_isolation": "serializable", "standard_conforming_strings": "off", "bytea_output": "escape",
    "extra_float_digits": "-15", "array_nulls": "off", "synchronous_commit": "off", "jit": "on", "lock_timeout": "1ms",
    "idle_session_timeout": "20ms", "idle_in_transaction_session_timeout": "1ms", "statement_timeout": "1ms",
    "enable_indexscan": "off", "enable_nestloop": "off", "enable_seqscan": "on", "row_security": "off",
}  # fmt: skip
SECOND = FIRST | {
    "IntervalStyle": "sql_standard", "DateStyle": "SQL, DMY", "client_encoding": "LATIN1", "statement_timeout": "2ms",
    "default_transaction_isolation": "repeatable read", "synchronous_commit": "local", "TimeZone": "America/St_Johns",
}  # fmt: skip
THIRD = FIRST | {
    "IntervalStyle": "postgres_verbose", "DateStyle": "Postgres, YMD", "client_encoding": "SQL_ASCII",
    "transaction_timeout": "2s",
}  # fmt: skip
ENVIRONMENT = {"PGDATESTYLE": "German", "PGTZ": "Asia/Kathmandu", "PGCLIENTENCODING": "LATIN1", "PGGEQO": "off"}

CHECKED = ("database", "database session", "migrations", "workers", "dispatcher")


def command(site: Installation, *arguments: str, **environ: str) -> Row:
    """Run a command in the environment of an installation; returns what it prints, parsed if that is JSON."""
    done = sliceway(site.environ | environ | {"SLICEWAY_LOG_LEVEL": "info"}, *arguments)
    assert done.stdout, (arguments, done.returncode, done.stderr)
    return {"code": done.returncode, "said": json.loads(done.stdout) if "--json" in arguments else done.stdout}


@contextmanager
def altered(site: Installation, whose: str, settings: Row) -> Iterator[psycopg.Connection[Any]]:
    """Set these for the database (or the role in it) of an installation, for whatever connects from now on."""
    site.workers(0)
    names = sql.SQL(whose).format(database=sql.Identifier(site.database.name))
    with psycopg.connect(conninfo(site.database.url), autocommit=True, options=site.database.options) as connection:
        try:
            for name, value in settings.items():
                parts = names, sql.Identifier(name), sql.Literal(value)
                connection.execute(sql.SQL("ALTER {} SET {} TO {}").format(*parts))
            _hang_up(connection)
            yield connection
        finally:
            connection.execute(sql.SQL("ALTER {} RESET ALL").format(names))
            site.workers(0)
            _hang_up(connection)


def _hang_up(connection: psycopg.Connection[Any]) -> None:
    """End all connections, so that each is made anew."""
    mine = b"datname = current_database() AND pid <> pg_backend_pid()"
    connection.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE " + mine)


def goes_well(site: Installation, **environ: str) -> None:
    """A worker that starts now uploads a file of several slices, and a small one, through a failure each."""
    site.workers(0)
    site.workers(1, **environ)
    sizes = (9, 2 * SLICE_BYTES)
    jobs = [uploaded(site, f"影片/第{size}集-{os.urandom(3).hex()}.mov", size) for size in sizes]
    key = command(site, "keys", "create", "--tenant", "acme", "--name", "钥匙", "--json", **environ)
    assert (key["code"], key["said"]["name"], key["said"]["created_at"][-1:]) == (0, "钥匙", "Z")
    port = site.api.base_url.port
    reached = {"SLICEWAY_API_URL": f"http://127.0.0.1:{port}", "SLICEWAY_API_KEY": key["said"]["key"]}
    for job in jobs:
        job_view = command(site, "jobs", "show", job.id, "--json", **environ, **reached)
        assert (job_view["code"], job_view["said"]["key"], job_view["said"]["state"]) == (0, job.key, "succeeded")
        assert job_view["said"]["labels"] == {"订单": "十七"}
    found = {each["check"]: each["level"] for each in command(site, "doctor", "--json", **environ)["said"]}
    assert {name: found.get(name) for name in CHECKED} == dict.fromkeys(CHECKED, "ok")


def uploaded(site: Installation, key: str, size_bytes: int) -> Job:
    """A job that succeeded after one 503, with the right bytes at the right place."""
    op = "data" if size_bytes > SLICE_BYTES else "upload"
    site.store.control.add_rule("error", op=op, path=key, count=1, status=503, code=-196)
    name = f"file-{os.urandom(4).hex()}"
    content = site.file(name, size_bytes)
    job = site.submit(JobSpec(name, key, {"labels": {"订单": "十七"}}), content)
    job.succeeds()
    assert site.store.object_at(key) == content
    assert len(job.asked(op, code=-196)) == 1
    assert {"init_deferred", "slice_deferred"} & set(job.kinds)
    return job


@pytest.mark.parametrize(
    ("whose", "settings"),
    [
        ("DATABASE {database}", FIRST),
        ("DATABASE {database}", THIRD),
        ("ROLE CURRENT_USER IN DATABASE {database}", SECOND),
    ],
)
def test_what_is_set_for_the_database_or_the_role(site: Installation, whose: str, settings: Row) -> None:
    with altered(site, whose, settings):
        goes_well(site)


def test_what_is_set_in_the_environment(site: Installation) -> None:
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SECOND.items())
    goes_well(site, PGOPTIONS=options, **ENVIRONMENT)


def test_behind_a_pooler_migrate_has_set_it_for_the_role(site: Installation) -> None:
    """A pooler takes no options: both URLs lead to the server, and what is sent to one is all that it gets."""
    pooled = {"SLICEWAY_DATABASE_DIRECT_URL": site.database.url}
    with altered(site, "DATABASE {database}", SECOND | {"statement_timeout": "10s", "idle_session_timeout": "1h"}):
        before = {each["check"]: each for each in command(site, "doctor", "--json", **pooled)["said"]}
        assert before["database session"]["level"] == "failed"
        assert "IntervalStyle is sql_standard and should be postgres" in before["database session"]["text"]
        assert "sliceway migrate" in before["database session"]["advice"]
        assert before["database session, directly"]["level"] == "ok"
        try:
            assert "Set the session settings of role" in command(site, "migrate", **pooled)["said"]
            assert command(site, "migrate", **pooled)["said"] == "The database is up to date.\n"
            goes_well(site, **pooled)
        finally:
            site.sql(f"ALTER ROLE CURRENT_USER IN DATABASE {site.database.name} RESET ALL")


class InSchema(Installation):
    """An installation whose tables are in a schema that only its URL names, beside settings against us."""

    def _environ(self) -> dict[str, str]:
        kept = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SECOND.items())
        self.sql("CREATE SCHEMA media")
        for table in ("alembic_version", "event", "slice", "job"):
            self.sql(f"DROP TABLE {table} CASCADE")
        self.database.url += f"?options={quote(f'-csearch_path=media {kept}')}"
        self.database.options += " -c search_path=media"
        environ = super()._environ()
        self.environ = environ
        assert "Migrated: 0001" in command(self, "migrate")["said"]
        return environ


def test_a_schema_that_the_url_names(servers: Servers) -> None:
    site = servers.install(InSchema)
    try:
        goes_well(site)
        assert site.sql("SELECT count(*) AS n FROM media.job")[0]["n"] == 2
    finally:
        site.close()
