"""A database of an installation's own, with triggers that write down what must never happen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from tests.support.templates import create_database, drop_database
from worker.db.pool import conninfo
from worker.jobs.states import MOVES, SLICE_MOVES

if TYPE_CHECKING:
    from worker.local.postgres import EmbeddedPostgres

Row = dict[str, Any]
_AUDIT = Path(__file__).with_name("audit.sql")
#: What a test reads with, whatever it has set for the database or the role.
_OWN = "-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c statement_timeout=0 -c idle_session_timeout=0"


class TestDatabase:
    """A copy of the migrated template; dropped with `drop`."""

    __test__ = False

    def __init__(self, postgres: EmbeddedPostgres, template: str) -> None:
        self._postgres = postgres
        self.options = _OWN
        self.name = create_database(postgres, template)
        self.url = postgres.url_of(self.name)
        allowed = {("job", str(move.source), str(move.target)) for move in MOVES if move.source is not None}
        allowed.add(("job", "queued", "cancelled"))  # two moves at once, where nothing was ever begun
        allowed |= {("slice", str(source), str(target)) for source, target in SLICE_MOVES}
        with psycopg.connect(conninfo(self.url), autocommit=True) as connection:
            connection.execute(_AUDIT.read_bytes())
            connection.cursor().executemany("INSERT INTO allowed VALUES (%s, %s, %s)", sorted(allowed))

    def run(self, statement: str, **params: Any) -> list[Row]:
        """Run one statement on a connection of its own and return its rows."""
        own = {"options": self.options, "client_encoding": "UTF8"}
        with psycopg.connect(conninfo(self.url), autocommit=True, row_factory=dict_row, **own) as connection:
            cursor = connection.execute(statement.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def drop(self) -> None:
        """Remove it; connections to it end."""
        drop_database(self._postgres, self.name)
