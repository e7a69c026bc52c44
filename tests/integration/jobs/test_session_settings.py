"""Sessions have the settings that the code relies on, whatever server, role, environment and URL set."""

from __future__ import annotations

import os
import string
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from worker.db.migrate import pending_migrations
from worker.db.notify import listen
from worker.db.pool import Database, connect, conninfo
from worker.db.session_settings import wrong
from worker.db.upgrade import update
from worker.jobs.api_keys import Scope, create_key, find_key, list_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.local.postgres import EmbeddedPostgres

#: Every setting that matters: a value that would do harm, and the value that our session has.
HOSTILE = [
    ("client_encoding", "LATIN1", "UTF8"),
    ("client_encoding", "GBK", "UTF8"),
    ("client_encoding", "SQL_ASCII", "UTF8"),
    ("DateStyle", "German", "ISO, MDY"),
    ("DateStyle", "SQL, DMY", "ISO, MDY"),
    ("DateStyle", "Postgres, YMD", "ISO, MDY"),
    ("IntervalStyle", "iso_8601", "postgres"),
    ("IntervalStyle", "sql_standard", "postgres"),
    ("IntervalStyle", "postgres_verbose", "postgres"),
    ("TimeZone", "Asia/Kathmandu", "UTC"),
    ("bytea_output", "escape", "hex"),
    ("extra_float_digits", "-15", "1"),
    ("standard_conforming_strings", "off", "on"),
    ("array_nulls", "off", "on"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_isolation", "repeatable read", "read committed"),
    ("synchronous_commit", "off", "on"),
    ("synchronous_commit", "local", "on"),
    ("synchronous_commit", "remote_write", "on"),
    ("synchronous_commit", "remote_apply", "remote_apply"),  # stricter than ours
    ("statement_timeout", "1ms", "0"),
    ("lock_timeout", "1ms", "0"),
    ("idle_in_transaction_session_timeout", "1ms", "0"),
    ("idle_session_timeout", "1ms", "0"),
    ("transaction_timeout", "5s", "0"),
    ("jit", "on", "off"),
    # settings of the operator, which are kept
    ("search_path", "media, public", "media, public"),
    ("default_transaction_read_only", "on", "on"),
    ("row_security", "off", "off"),
    ("work_mem", "1MB", "1MB"),
]
#: What libpq reads from the environment, beside PGOPTIONS.
ENVIRONMENT = {"PGCLIENTENCODING": "client_encoding", "PGDATESTYLE": "DateStyle", "PGTZ": "TimeZone"}
TEXT = "影片/第一集 — ключ \\ '\"{}"


@pytest.fixture(scope="module")
def shared_url(postgres: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """The URL of a database for all of these tests; each test resets its settings."""
    name = f"test_settings_{os.getpid()}"
    with psycopg.connect(conninfo(postgres.url_of("postgres")), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template_database}"'.encode())
        yield postgres.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture
def here(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that was opened before the test set anything."""
    with psycopg.connect(conninfo(database_url), autocommit=True) as connection:
        yield connection
        database = sql.Identifier(connection.info.dbname)
        for whose in ("DATABASE {}", "ROLE CURRENT_USER IN DATABASE {}"):
            connection.execute(sql.SQL("ALTER " + whose + " RESET ALL").format(database))


@pytest.fixture
def set_by(
    database_url: str, here: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str, str], str]:
    """Return a function that makes a setting in one of the ways, and returns the URL to connect with."""

    def apply(way: str, name: str, value: str) -> str:
        option = f"-c {name}={value.replace(' ', chr(92) + ' ')}"
        if way in {"ALTER DATABASE", "ALTER ROLE"}:
            alter(here, way, name, value)
        elif way == "PGOPTIONS":
            monkeypatch.setenv("PGOPTIONS", option)
        else:
            return f"{database_url}?options={quote(option)}"
        return database_url

    return apply


def alter(here: psycopg.Connection[Any], way: str, name: str, value: str) -> None:
    database = sql.Identifier(here.info.dbname)
    whose = sql.SQL("DATABASE {}" if way == "ALTER DATABASE" else "ROLE CURRENT_USER IN DATABASE {}").format(database)
    listed = sql.SQL(", ").join(sql.Literal(each) for each in value.split(", "))
    values = listed if name == "search_path" else sql.Literal(value)
    here.execute(sql.SQL("ALTER {} SET {} TO {}").format(whose, sql.Identifier(name), values))


def setting(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s) AS value", (name,)).fetchone()
    return str(row["value"])


@pytest.mark.parametrize("way", ["ALTER DATABASE", "ALTER ROLE", "PGOPTIONS", "the URL"])
@pytest.mark.parametrize(("name", "value", "wanted"), HOSTILE)
def test_a_session_has_what_we_rely_on(
    set_by: Callable[[str, str, str], str], way: str, name: str, value: str, wanted: str
) -> None:
    url = set_by(way, name, value)
    with closing(Database(url, pool_size=1, plan_once=True)) as database:
        with database.connection() as pooled, closing(listen(url)) as listening:
            assert (setting(pooled, name), setting(listening, name)) == (wanted, wanted)
            assert (wrong(pooled), wrong(listening)) == ({}, {})
            assert setting(pooled, "enable_seqscan") == "off"
            comes_back_whole(pooled)
        if name not in {"default_transaction_read_only", "search_path"}:
            with database.transaction() as tx:
                key, text = create_key(tx, "acme", [Scope.READ], name=TEXT)
            with database.connection() as tx:
                found = find_key(tx, text)
                assert found is not None
                assert (found.id, [each.name for each in list_keys(tx, "acme") if each.id == key.id]) == (
                    key.id,
                    [TEXT],
                )


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_the_environment_of_libpq_changes_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name, value, _ in HOSTILE:
        if name == ENVIRONMENT[variable]:
            monkeypatch.setenv(variable, value)
            with closing(Database(database_url, pool_size=1)) as database, database.connection() as connection:
                assert wrong(connection) == {}
                comes_back_whole(connection)


def comes_back_whole(connection: psycopg.Connection[Any]) -> None:
    sent = {
        "text": TEXT,
        "bytes": bytes(range(256)),
        "at": datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
        "took": timedelta(days=-400, seconds=3, microseconds=7),
        "list": [TEXT, None],
        "rate": 1234567890.123456,
    }
    row = connection.execute(
        """SELECT %(text)s::text AS text, %(bytes)s::bytea AS bytes, %(at)s::timestamptz AS at,
             %(took)s::interval AS took, %(list)s::text[] AS list, %(rate)s::float8 AS rate""",
        sent,
    ).fetchone()
    assert row == sent


def test_other_options_of_the_url_are_kept(database_url: str) -> None:
    options = quote(r"-c search_path=media -c work_mem=5MB --application_name=mine\ own -c IntervalStyle=iso_8601")
    with closing(connect(f"{database_url}?options={options}")) as connection:
        names = ("search_path", "work_mem", "application_name", "IntervalStyle")
        assert [setting(connection, name) for name in names] == ["media", "5MB", "mine own", "postgres"]


def test_options_of_the_url_stand_for_those_of_the_environment(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in libpq."""
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=6MB")
    with closing(connect(database_url)) as connection:
        assert setting(connection, "work_mem") == "6MB"
    with closing(connect(f"{database_url}?options=-csearch_path%3Dmedia")) as connection:
        assert (setting(connection, "work_mem"), setting(connection, "search_path")) == ("4MB", "media")


@pytest.mark.parametrize("form", ["netloc", "sqlalchemy", "libpq"])
def test_of_several_hosts_each_connection_takes_the_one_that_answers(database_url: str, form: str) -> None:
    there = make_url(database_url)
    start, port, name = database_url.partition("@")[0], there.port, there.database
    url = {
        "netloc": f"{start}@127.0.0.1:1,127.0.0.1:{port}/{name}?sslmode=prefer",
        "sqlalchemy": f"{start}@/{name}?host=127.0.0.1:1&host=127.0.0.1:{port}&sslmode=prefer",
        "libpq": f"{start}@/{name}?host=127.0.0.1,127.0.0.1&port=1,{port}&sslmode=prefer",
    }[form]
    with closing(Database(url, pool_size=1)) as database, database.connection() as pooled, closing(listen(url)) as own:
        assert (pooled.info.port, own.info.port) == (port, port)
    assert pending_migrations(url) == []


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_connection_has_the_password_as_it_is(
    database_url: str, here: psycopg.Connection[Any], scheme: str
) -> None:
    there, role = make_url(database_url), f"hard_{here.info.dbname}"
    password = "a%20b " + "".join(char for char in string.printable if char.isprintable())
    here.execute(
        sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
    )
    try:
        url = f"{scheme}://{role}:{quote(password, safe='')}@127.0.0.1:{there.port}/{there.database}"
        with (
            closing(Database(url, pool_size=1)) as database,
            database.connection() as pooled,
            closing(listen(url)) as own,
        ):
            assert (pooled.info.user, own.info.user) == (role, role)
        with psycopg.connect(conninfo(url)) as plain:
            assert plain.info.user == role
        assert pending_migrations(url) == []
    finally:
        here.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


# behind a pooler, which takes no options: here both URLs lead to the server itself, so it sees all that we send


def test_to_a_pooler_no_options_are_sent(database_url: str) -> None:
    with closing(Database(database_url, pooled=True, plan_once=True, application="asked")) as database:
        with database.connection() as connection:
            sources = connection.execute("SELECT name FROM pg_settings WHERE source = 'client'").fetchall()
        assert {row["name"] for row in sources} == {"application_name", "client_encoding"}


def test_migrate_sets_for_the_role_behind_a_pooler_what_is_sent_elsewhere(
    database_url: str, here: psycopg.Connection[Any]
) -> None:
    for name, value, wanted in HOSTILE:
        if value not in {wanted, "1ms"}:
            alter(here, "ALTER DATABASE", name, value)
    with closing(connect(database_url, pooled=True)) as before:
        assert {"DateStyle", "IntervalStyle", "TimeZone", "synchronous_commit"} < set(wrong(before))
    assert (
        update(database_url, database_url).role,
        update(database_url, database_url).role,
    ) == (here.info.user, None)
    with closing(connect(database_url, pooled=True)) as after:
        assert wrong(after) == {}
        comes_back_whole(after)


def test_the_role_of_the_pooler_is_another_than_that_of_the_direct_url(
    database_url: str, here: psycopg.Connection[Any]
) -> None:
    role = f"behind_{here.info.dbname}"
    here.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'fake-secret-role'".encode())
    try:
        url = database_url.replace(database_url.split("//")[1].split("@", maxsplit=1)[0], f"{role}:fake-secret-role")
        alter(here, "ALTER DATABASE", "DateStyle", "German")
        assert update(url, database_url).role == role
        with closing(connect(url, pooled=True)) as after:
            assert wrong(after) == {}
        kept = here.execute(b"SELECT r.rolname FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole")
        assert {row[0] for row in kept} == {role}
    finally:
        here.execute(f"DROP OWNED BY {role}".encode())
        here.execute(f"DROP ROLE {role}".encode())


def test_our_own_process_keeps_nothing_that_libpq_would_send_after_ours(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGDATESTYLE", "PGTZ", "PGGEQO"):
        monkeypatch.setenv(name, "off")
    with closing(connect(database_url, pooled=True)) as connection:
        assert setting(connection, "TimeZone") != "off"
    assert not {"PGDATESTYLE", "PGTZ", "PGGEQO"} & set(os.environ)
