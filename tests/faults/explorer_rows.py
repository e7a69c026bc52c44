"""The rows of one job as a value, and the product's own statements as functions over such values.

A statement runs on a real PostgreSQL: the rows are written, it runs, the rows are read, all of it is rolled back. What
it did is remembered, so that each statement runs once for the same rows and parameters however often the search comes
by. Times are reduced to what the statements ask of them: whether a lease or a wait is over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from psycopg import Cursor
from psycopg.types.json import Jsonb

import worker.jobs
from worker.errors import Conflict
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.db.pool import Tx

Row = dict[str, Any]
NOW = datetime.now(UTC).replace(microsecond=0)
#: What times become. A lease and a wait are over or not; all others are just now.
OVER, NOT_OVER, JUST_NOW = "2001-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00", NOW.isoformat()
_UNTIL = frozenset({"lease_until", "not_before", "heartbeat_at"})
_TIMES = frozenset(
    {"paused_at", "dispatched_at", "failing_since", "created_at", "started_at", "finished_at", "updated_at",
     "claimed_at", "done_at", "ended_at", "claimed_through"}
)  # fmt: skip
#: Counted, but nothing that can be reached here depends on it.
_COUNTED = {"run": 1, "sends": 0, "deaths": 0}

Parts = dict[str, list[Row]]
WORK, CREW = ("job", "slice"), ("worker", "breaker")
TABLES = {"job": "id", "slice": "number", "worker": "id", "breaker": "store"}
SWEEP_EVERY = 200
_WRITE = "WITH " + ", ".join(  # noqa: S608 - the names are those above
    f"t{n} AS (INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %(rows)s::jsonb -> '{table}'))"  # noqa: S608
    for n, table in enumerate(TABLES)
) + " SELECT"  # fmt: skip
_READ = "SELECT " + ", ".join(  # noqa: S608
    f"(SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY {key}), '[]') FROM {table} t) AS {table}"  # noqa: S608
    for table, key in TABLES.items()
)


class At(NamedTuple):
    """The rows, by number: those of the job, and those of the workers, which few statements read."""

    work: int
    crew: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a statement did: the rows after it, and what it returned; ``refused`` names the refusal that it met."""

    rows: At
    found: Any = None
    refused: str = ""


class _Without:
    """A connection on which words are missing from statements."""

    def __init__(self, tx: Tx, dropped: Mapping[str, Sequence[str]]) -> None:
        self._tx, self._dropped = tx, dropped

    def execute(self, statement: Any, params: Any = None) -> Cursor[Row]:
        text = statement
        for words in self._dropped.get(statement, ()):
            assert words in text, f"there is no {words!r} to be dropped from {statement}"
            text = text.replace(words, "")
        return self._tx.execute(text, params)


class Rows:
    """Every state that the rows were ever in, by number; and every statement that ran on one."""

    def __init__(self, tx: Tx, dropped: Mapping[str, Sequence[str]] | None = None) -> None:
        """Begin with empty tables.

        Args:
            tx: a connection to a migrated database of one's own.
            dropped: statement -> words to be left out of it: to see that a guard is missed.
        """
        self.runs = 0
        self._tx = tx
        self._lent = cast("Tx", _Without(tx, {sql(name): words for name, words in (dropped or {}).items()}))
        self._numbers: dict[str, int] = {}
        self._rows: list[Parts] = []
        self._done: dict[tuple[int, int | None, str], Change] = {}
        self.empty = At(self._number({table: [] for table in WORK}), self._number({table: [] for table in CREW}))

    def __len__(self) -> int:
        return len(self._rows)

    def work(self, at: At) -> Parts:
        """Return the rows of job and slices."""
        return self._rows[at.work]

    def job(self, at: At) -> Row:
        """Return the job's row."""
        return self._rows[at.work]["job"][0]

    def slices(self, at: At) -> Sequence[Row]:
        """Return the slices' rows, by number."""
        return self._rows[at.work]["slice"]

    def crew(self, at: At) -> Sequence[Row]:
        """Return the workers' rows."""
        return self._rows[at.crew]["worker"]

    def run(self, at: At, name: str, act: Callable[[Tx], Any], *, with_crew: bool = False) -> Change:
        """Run something of this name on the rows; its name must say all that it depends on.

        Args:
            at: the rows.
            name: of what is run.
            act: runs it.
            with_crew: whether it reads or writes the rows of workers.
        """
        key = (at.work, at.crew if with_crew else None, name)
        if key not in self._done:
            self._done[key] = self._really(at, act)
        done = self._done[key]
        return done if with_crew else replace(done, rows=At(done.rows.work, at.crew))

    def statement(self, at: At, name: str, params: Row) -> Change:
        """Run one of the product's statements, of a task, on the rows."""
        params = plain(params)
        text: Any = self.statements.get(name, name)
        key = f"{name} {json.dumps(params, default=_bare, sort_keys=True)}"
        return self.run(at, key, lambda tx: tx.execute(text, params))

    @cached_property
    def statements(self) -> dict[str, str]:
        """The product's statements, by name; one without a file goes by its text."""
        folder = Path(worker.jobs.__file__).parent / "sql"
        return {path.stem: sql(path.stem) for path in folder.glob("*.sql")}

    def _really(self, at: At, act: Callable[[Tx], Any]) -> Change:
        self.runs += 1
        if self.runs % SWEEP_EVERY == 0:  # what was rolled back lies about in tables and indexes
            self._tx.execute(f"TRUNCATE event, {', '.join(TABLES)}")
        with self._tx.pipeline(), self._tx.transaction(force_rollback=True):  # fewer rounds
            self._tx.execute(_WRITE, {"rows": json.dumps(self._rows[at.work] | self._rows[at.crew])})
            try:
                found = act(self._lent)
            except Conflict as error:
                return Change(at, refused=error.code)
            row = self._tx.execute(_READ).fetchone()
            if isinstance(found, Cursor):
                found = found.fetchall() if found.description else []
        assert row is not None
        parts = ({table: [canonical(each) for each in row[table]] for table in tables} for tables in (WORK, CREW))
        return Change(At(*map(self._number, parts)), found)

    def _number(self, rows: Parts) -> int:
        text = json.dumps(rows, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self._rows)
            self._rows.append(rows)
        return self._numbers[text]


def canonical(row: Row) -> Row:
    """Return a row of a table without what makes no difference here."""
    made = dict(row)
    for column, value in row.items():
        if value is None:
            continue
        if column in _UNTIL:
            made[column] = NOT_OVER if value > JUST_NOW else OVER
        elif column in _TIMES:
            made[column] = JUST_NOW
        elif column in _COUNTED:
            made[column] = _COUNTED[column]
    if row.get("error"):
        made["error"] = {"code": row["error"]["code"]}
    if row.get("result"):
        made["result"] = {name: row["result"].get(name) for name in ("proof", "session_left_open")}
    if "finish_claims" in row:
        made["finish_claims"] = min(1, row["finish_claims"])
    if made.get("heartbeat_at"):
        made["heartbeat_at"] = NOT_OVER  # lives until it is taken for dead
    return made


def plain(params: Row) -> Row:
    """Return parameters without chance and time: a wait is a wait, whatever its length."""
    return {name: _plain(name, value) for name, value in params.items()}


def _plain(name: str, value: Any) -> Any:
    if name == "delay_s" and value is not None:
        return 60.0
    if isinstance(value, Jsonb):
        return Jsonb({key: part for key, part in value.obj.items() if key != "at"})
    return value


def _bare(value: Any) -> Any:
    return value.obj if isinstance(value, Jsonb) else str(value)
