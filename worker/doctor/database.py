"""Checks PostgreSQL: reachable, writable, durable, free connections, migrations, and then the work in our tables."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from alembic.script.revision import ResolutionError

from worker.db.migrate import pending_migrations
from worker.db.pool import connect
from worker.db.session_settings import POOLER_ADVICE, UnexpectedPoolerError
from worker.doctor import sessions
from worker.doctor.findings import CONNECT_S, Finding, Level, clock
from worker.doctor.stores_versions import stores_versions
from worker.doctor.work import work

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.config.profiles import Profiles
    from worker.config.settings import Settings
    from worker.db.pool import Connection
    from worker.db.url import DatabaseUrl

_OLDEST_POSTGRES = 14
_NEARLY_ALL = 0.9
_LONG_DUTIES = 1
"""The connection of the leader's long duties."""
LONG_S = 600.0
"""A transaction that is open for so long prevents vacuum from removing the dead rows of all checkpoints since."""
_PROMISES = {
    "fsync": "commits are not forced to disk",
    "full_page_writes": "a crash can tear pages",
}
_STATUS = """
  SELECT pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') = 'on' AS read_only,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS available,
    count(*) FILTER (WHERE datid IS NOT NULL) AS used,
    count(*) FILTER (WHERE datid IS NOT NULL AND application_name NOT LIKE 'sliceway%') AS used_by_others
  FROM pg_stat_activity WHERE coalesce(backend_type, 'client backend') = 'client backend'"""
_LONG = """
  SELECT pid, application_name, extract(epoch FROM now() - xact_start)::float8 AS open_s FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - make_interval(secs => %s)
    AND backend_type = 'client backend'
  ORDER BY xact_start LIMIT 3"""


class _Status(NamedTuple):
    """The server's state and its connections."""

    standby: bool
    read_only: bool
    available: int
    used: int
    used_by_others: int
    """Of other programs than Sliceway."""


def database(settings: Settings, profiles: Profiles) -> Iterator[Finding]:
    """Check the server, then our tables in it, then the work that they describe."""
    pooled = settings.database_direct_url is not None
    with ExitStack() as opened:
        try:
            connection = opened.enter_context(connect(settings.database_url, pooled=pooled, connect_timeout=CONNECT_S))
        except UnexpectedPoolerError as error:
            yield Finding("database", Level.FAILED, str(error), POOLER_ADVICE)
            return
        yield from _server(connection)
        yield sessions.session(connection, pooled=pooled)
        status = _Status(**_one(connection, _STATUS))
        yield _writable(status)
        if settings.database_direct_url is not None:  # for the rest: it has our session settings, whatever the role has
            try:
                direct = opened.enter_context(connect(settings.database_direct_url, connect_timeout=CONNECT_S))
            except UnexpectedPoolerError as error:
                yield Finding("database, directly", Level.FAILED, str(error), POOLER_ADVICE)
                return
            yield Finding("database, directly", Level.OK, "reachable past the pooler")
            yield from sessions.directly(connection, direct)
            connection = direct
        yield _durable(connection)
        yield from _transactions(connection)
        migrated = _migrations(settings.database_url, pooled=pooled)
        yield migrated
        if migrated.level is Level.OK:
            yield _connections(connection, settings, status)
            yield from work(connection, settings.timers.dead_after_s, profiles)
            yield from stores_versions(connection, settings)


def _server(connection: Connection) -> Iterator[Finding]:
    version = connection.info.server_version // 10_000
    where = f"PostgreSQL {version} at {connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    if version < _OLDEST_POSTGRES:
        yield Finding("database", Level.FAILED, where, f"Use PostgreSQL {_OLDEST_POSTGRES} or newer.")
    else:
        yield Finding("database", Level.OK, where)
    yield from sessions.encoding(connection)
    yield clock("database", _one(connection, "SELECT extract(epoch FROM clock_timestamp())::float8 AS now")["now"])


def _one(connection: Connection, statement: str) -> Mapping[str, Any]:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row


def _writable(status: _Status) -> Finding:
    if status.standby:
        advice = "Point SLICEWAY_DATABASE_URL at the primary, or promote this server."
        return Finding("database writes", Level.FAILED, "it is a standby and takes no writes", advice)
    if status.read_only:
        advice = (
            "See why (a full disk?), then set default_transaction_read_only to off for the server, database or role."
        )
        return Finding("database writes", Level.FAILED, "default_transaction_read_only is on", advice)
    return Finding("database writes", Level.OK, "it is a primary and takes writes")


def _durable(connection: Connection) -> Finding:
    rows = connection.execute(
        "SELECT name FROM pg_settings WHERE name = ANY (%s) AND setting = 'off' ORDER BY name", (list(_PROMISES),)
    )
    if off := [row["name"] for row in rows]:
        text = f"{', '.join(off)} off ({_PROMISES[off[0]]}): a crash of its machine can lose jobs that were accepted"
        return Finding("database durability", Level.FAILED, text, f"Set {' and '.join(off)} to on.")
    return Finding("database durability", Level.OK, f"{', '.join(_PROMISES)} are on")


def _transactions(connection: Connection) -> Iterator[Finding]:
    for row in connection.execute(_LONG, (LONG_S,)):
        client = f"{row['application_name'] or 'an unnamed client'}, pid {row['pid']}"
        text = f"a transaction of {client} is open for {row['open_s'] / 60:.0f} min: vacuum removes nothing meanwhile"
        advice = f"End it: SELECT pg_terminate_backend({row['pid']})."
        yield Finding("database transactions", Level.NOTE, text, advice)


def _migrations(url: DatabaseUrl, *, pooled: bool) -> Finding:
    try:
        pending = pending_migrations(url, pooled=pooled)
    except ResolutionError:
        text = "the database has migrations that this release does not know"
        return Finding("migrations", Level.FAILED, text, "Run the release here that the database was migrated with.")
    if pending:
        text = f"it lacks {len(pending)} of our migrations: {', '.join(pending)}"
        return Finding("migrations", Level.FAILED, text, "Run `sliceway migrate`.")
    return Finding("migrations", Level.OK, "up to date")


def _connections(connection: Connection, settings: Settings, status: _Status) -> Finding:
    """Compare the server's limit with what the live workers and one API process may open, unless a pooler limits it."""
    name, used, available = "database connections", status.used, status.available
    workers = _one(connection, "SELECT coalesce(sum(2 * (slots + 3) + 1), 0) AS n FROM worker WHERE ended_at IS NULL")
    needed = int(workers["n"]) + _LONG_DUTIES + 2 * (settings.api_threads + 1)
    text = f"{used} of {available} are in use"
    if used > _NEARLY_ALL * available:
        return Finding(name, Level.FAILED, text, "Raise max_connections, or find the clients that hold so many.")
    if settings.database_direct_url is None and status.used_by_others + needed > available:
        text += f"; workers and one API process may open {needed}, others hold {status.used_by_others}"
        return Finding(name, Level.NOTE, text, "Raise max_connections, or put a pooler between.")
    return Finding(name, Level.OK, f"{text}; workers and one API process may open {needed}")
