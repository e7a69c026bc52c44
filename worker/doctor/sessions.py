"""Checks the session settings that the code relies on, through each URL, and the database's encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.db.session_settings import read, wrong
from worker.doctor.findings import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.db.pool import Connection

NAME = "database session"
DIRECTLY = "database session, directly"
_COSTS_TIME = {"jit"}
"""Settings that change no result."""
_POOLED_ADVICE = (
    "Run `sliceway migrate`, then have the pooler open its connections anew (PgBouncer: RECONNECT); see that"
    " neither it nor PGOPTIONS sets them otherwise."
)
_DIRECT_ADVICE = "See what sets them after the connection has begun: a pooler? Then set SLICEWAY_DATABASE_DIRECT_URL."


def encoding(connection: Connection) -> Iterator[Finding]:
    """Check that the database can hold every key and label."""
    there = read(connection, ["server_encoding"])["server_encoding"]
    if there != "UTF8":
        text = f"it keeps {there}: keys, paths and labels in other letters are refused"
        yield Finding("database encoding", Level.FAILED, text, "Make a database with ENCODING 'UTF8' for Sliceway.")


def session(connection: Connection, *, pooled: bool) -> Finding:
    """Compare the settings of a session through the database URL with what the code needs."""
    return _compared(NAME, connection, _POOLED_ADVICE if pooled else _DIRECT_ADVICE)


def directly(through_pooler: Connection, past_it: Connection) -> Iterator[Finding]:
    """Compare the settings of a session past the pooler with what the code needs; compare both search paths."""
    yield _compared(DIRECTLY, past_it, _DIRECT_ADVICE)
    [there, here] = [read(each, ["search_path"])["search_path"] for each in (through_pooler, past_it)]
    if there != here:
        text = f"search_path is {there} through the pooler and {here} past it: they may find other tables"
        advice = "Set the same for both: ALTER ROLE … IN DATABASE … SET search_path, for the role behind the pooler."
        yield Finding("database schema", Level.FAILED, text, advice)


def _compared(name: str, connection: Connection, advice: str) -> Finding:
    if found := wrong(connection):
        text = ", ".join(f"{setting} is {value} and should be {wanted}" for setting, (value, wanted) in found.items())
        level = Level.NOTE if found.keys() <= _COSTS_TIME else Level.FAILED
        return Finding(name, level, text, advice)
    return Finding(name, Level.OK, "its settings are those that Sliceway relies on")
