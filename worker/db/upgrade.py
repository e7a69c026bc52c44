"""Bring a database up to date: its tables, and behind a pooler the session settings of the role that connects there.

A pooler refuses startup options, and what one client sets in a session the next one would find there. So the settings
of `worker/db/session_settings.py` are kept with the role, for this database alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from worker.db.migrate import migrate, pending_migrations
from worker.db.pool import connect
from worker.db.session_settings import (
    CLIENT_ENCODING,
    CONDITIONAL,
    PINNED,
    POOLER_ADVICE,
    UnexpectedPoolerError,
    read,
    wrong,
)
from worker.errors import SettingsError, SlicewayError

if TYPE_CHECKING:
    from worker.db.pool import Connection
    from worker.db.url import DatabaseUrl

APPLICATION = "sliceway cli"
LOOK_TIMEOUT_S = 2
_KEPT = """
SELECT unnest(setconfig) AS setting FROM pg_db_role_setting
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = %s)
  AND setrole = (SELECT oid FROM pg_roles WHERE rolname = %s)"""


@dataclass(frozen=True, slots=True)
class Updated:
    """What was done: the migrations applied, oldest first, and the role (None: none) whose settings were changed."""

    migrations: list[str]
    role: str | None


def refuse_unexpected_pooler(url: str | DatabaseUrl, direct: str | DatabaseUrl | None) -> None:
    """Look at the start of a role whether PostgreSQL itself answers; one that is away is waited for later.

    Args:
        url: where the tables are.
        direct: the way past the pooler, if `url` leads to one.

    Raises:
        SettingsError: a pooler answers where none was said to be.
    """
    try:
        connect(direct or url, application_name=APPLICATION, connect_timeout=LOOK_TIMEOUT_S).close()
    except UnexpectedPoolerError as error:
        name = "SLICEWAY_DATABASE_URL" if direct is None else "SLICEWAY_DATABASE_DIRECT_URL"
        raise SettingsError(f"{name}: {error}", advice=POOLER_ADVICE) from error
    except psycopg.Error:
        return


def update(url: str | DatabaseUrl, direct: str | DatabaseUrl | None) -> Updated:
    """Apply what is pending, past the pooler if there is one, and then set the session settings of its role.

    Args:
        url: where the tables are.
        direct: the way past the pooler, if `url` leads to one.

    Raises:
        SettingsError: the database does not keep every text.
        SlicewayError: the direct URL's role may not set those of the other.
    """
    _check_encoding(url, direct)
    pending = pending_migrations(direct or url)
    migrate(direct or url)
    if direct is None:
        return Updated(pending, None)
    return Updated(pending, _pin_role(url, direct))


def _check_encoding(url: str | DatabaseUrl, direct: str | DatabaseUrl | None) -> None:
    """Refuse a database whose encoding is another: it cannot be changed, and keys and labels are any text."""
    with connect(direct or url, application_name=APPLICATION) as here:
        there = here.info.parameter_status("server_encoding")
    if there != CLIENT_ENCODING:
        name = "SLICEWAY_DATABASE_DIRECT_URL" if direct else "SLICEWAY_DATABASE_URL"
        raise SettingsError(
            f"{name} is wrong: its database keeps text as {there}, not UTF8",
            advice="Make one for Sliceway: CREATE DATABASE sliceway TEMPLATE template0 ENCODING 'UTF8'.",
        )


def _pin_role(pooled_url: str | DatabaseUrl, direct_url: str | DatabaseUrl) -> str | None:
    """Set the settings of the role that the pooler connects as; returns its name if anything was changed."""
    with connect(pooled_url, pooled=True, application_name=APPLICATION) as there:
        found = there.execute("SELECT session_user AS role, current_database() AS database").fetchone() or {}
        weaker = wrong(there).keys() & CONDITIONAL.keys()
    wanted = {"client_encoding": CLIENT_ENCODING} | PINNED | {name: CONDITIONAL[name] for name in sorted(weaker)}
    role, database = found["role"], found["database"]
    with connect(direct_url, application_name=APPLICATION) as here:
        kept = dict(row["setting"].split("=", 1) for row in here.execute(_KEPT, (database, role)))
        there_is = read(here, wanted)
        lacking = {name: value for name, value in wanted.items() if name in there_is and kept.get(name) != value}
        statements = [_statement(role, database, name, value) for name, value in lacking.items()]
        _run(here, statements)
    return role if lacking else None


def _statement(role: str, database: str, name: str, value: str) -> sql.Composed:
    parts = sql.Identifier(role), sql.Identifier(database), sql.Identifier(name), sql.Literal(value)
    return sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} TO {}").format(*parts)


def _run(here: Connection, statements: list[sql.Composed]) -> None:
    try:
        with here.transaction():
            for statement in statements:
                here.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        text = "; ".join(statement.as_string(here) for statement in statements)
        raise SlicewayError(
            "the role of SLICEWAY_DATABASE_DIRECT_URL may not set the session settings of the role behind the pooler",
            code="pooler_role",
            advice=f"Use the same role in both URLs, or have an administrator run: {text}",
        ) from error
