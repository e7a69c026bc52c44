"""The rows of one job as a value, and the product's own statements as functions over such values.

A statement runs on a real PostgreSQL: the rows are written, it runs, the rows are read, all is rolled back. The result
is cached, so that each statement runs once for the same rows and parameters. Times are reduced to what the statements
ask of them: whether a lease or a wait is over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
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
    from contextlib import AbstractContextManager

    from worker.db.pool import Connection

Row = dict[str, Any]
NOW = datetime.now(UTC).replace(microsecond=0)
#: The values to which times are reduced. A lease or a wait is over or not; all other times are the same.
OVER, NOT_OVER, JUST_NOW = "2001-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00", NOW.isoformat()
_UNTIL = frozenset({"lease_until", "not_before", "heartbeat_at"})
_TIMES = frozenset(
    {"paused_at", "dispatched_at", "failing_since", "created_at", "started_at", "finished_at", "updated_at",
     "claimed_at", "done_at", "ended_at", "claimed_through"}
)  # fmt: skip
#: Counters on which nothing depends that can be reached here.
_COUNTED = {"run": 1, "sends": 0, "deaths": 0}

Parts = dict[str, list[Row]]
JOB_TABLES, WORKER_TABLES = ("job", "slice"), ("worker", "breaker")
TABLES = {"job": "id", "slice": "number", "worker": "id", "breaker": "store"}
TRUNCATE_EVERY = 200
_WRITE = "WITH " + ", ".join(  # noqa: S608 - the names are those above
    f"t{n} AS (INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %(rows)s::jsonb -> '{table}'))"  # noqa: S608
    for n, table in enumerate(TABLES)
) + " SELECT"  # fmt: skip
_READ = "SELECT " + ", ".join(  # noqa: S608
    f"(SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY {key}), '[]') FROM {table} t) AS {table}"  # noqa: S608
    for table, key in TABLES.items()
)


class RowsRef(NamedTuple):
    """Rows by number: those of the job, and those of the workers, which few statements read."""

    job: int
    workers: int


@dataclass(frozen=True, slots=True)
class Change:
    """The rows after a statement, and its result."""

    rows: RowsRef
    result: Any = None


class _DroppingConnection:
    """A connection that drops clauses from statements."""

    def __init__(self, tx: Connection, dropped: Mapping[str, Sequence[str]]) -> None:
        self._tx, self._dropped = tx, dropped

    def execute(self, statement: Any, params: Any = None) -> Cursor[Row]:
        text = statement
        for clause in self._dropped.get(statement, ()):
            assert clause in text, f"there is no {clause!r} to be dropped from {statement}"
            text = text.replace(clause, "")
        return self._tx.execute(text, params)

    def transaction(self) -> AbstractContextManager[object]:
        return self._tx.transaction()


class Rows:
    """Every state that the rows were ever in, by number; and every statement that ran on one."""

    def __init__(self, tx: Connection, dropped: Mapping[str, Sequence[str]] | None = None) -> None:
        """Begin with empty tables.

        Args:
            tx: a connection to a migrated database that nothing else uses.
            dropped: statement -> clauses to drop from it: to show that the search notices a missing guard.
        """
        self.runs = 0
        self._tx = tx
        without = {sql(name): clauses for name, clauses in (dropped or {}).items()}
        self._connection = cast("Connection", _DroppingConnection(tx, without))
        self._numbers: dict[str, int] = {}
        self._rows: list[Parts] = []
        self._changes: dict[tuple[int, int | None, str], Change] = {}
        self.empty = RowsRef(*(self._number({table: [] for table in tables}) for tables in (JOB_TABLES, WORKER_TABLES)))

    def __len__(self) -> int:
        return len(self._rows)

    def job(self, ref: RowsRef) -> Row:
        """Return the job's row."""
        return self._rows[ref.job]["job"][0]

    def slices(self, ref: RowsRef) -> Sequence[Row]:
        """Return the slices' rows, by number."""
        return self._rows[ref.job]["slice"]

    def workers(self, ref: RowsRef) -> Sequence[Row]:
        """Return the workers' rows."""
        return self._rows[ref.workers]["worker"]

    def run(self, ref: RowsRef, name: str, act: Callable[[Connection], Any], *, with_workers: bool = False) -> Change:
        """Run a function on the rows; its name must contain everything that it depends on.

        Args:
            ref: the rows.
            name: of the function.
            act: the function.
            with_workers: whether it reads or writes the rows of workers.
        """
        key = (ref.job, ref.workers if with_workers else None, name)
        if key not in self._changes:
            self._changes[key] = self._execute(ref, act)
        change = self._changes[key]
        return change if with_workers else replace(change, rows=RowsRef(change.rows.job, ref.workers))

    def statement(self, ref: RowsRef, name: str, params: Row) -> Change:
        """Run a statement of a task on the rows."""
        params = {column: _plain(column, value) for column, value in params.items()}
        text: Any = self.statements.get(name, name)
        key = f"{name} {json.dumps(params, default=_bare, sort_keys=True)}"
        return self.run(ref, key, lambda tx: tx.execute(text, params))

    @cached_property
    def statements(self) -> dict[str, str]:
        """The product's statements, by name; the name of one without a file is its text."""
        folder = Path(worker.jobs.__file__).parent / "sql"
        return {path.stem: sql(path.stem) for path in folder.glob("*.sql")}

    def _execute(self, ref: RowsRef, act: Callable[[Connection], Any]) -> Change:
        self.runs += 1
        if self.runs % TRUNCATE_EVERY == 0:  # dead rows of rolled-back transactions slow down tables and indexes
            self._tx.execute(f"TRUNCATE event, {', '.join(TABLES)}")
        with self._tx.pipeline(), self._tx.transaction(force_rollback=True):  # a pipeline needs fewer round trips
            self._tx.execute(_WRITE, {"rows": json.dumps(self._rows[ref.job] | self._rows[ref.workers])})
            try:
                result = act(self._connection)
            except Conflict:
                return Change(ref)
            row = self._tx.execute(_READ).fetchone()
            if isinstance(result, Cursor):
                result = result.fetchall() if result.description else []
        assert row is not None
        job, workers = (
            self._number({table: [canonical(each) for each in row[table]] for table in tables})
            for tables in (JOB_TABLES, WORKER_TABLES)
        )
        return Change(RowsRef(job, workers), result)

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
        made["heartbeat_at"] = NOT_OVER  # a worker lives until it is declared dead
    return made


def canonical_result(rows: list[Row]) -> list[Row]:
    """Return the result of a statement without what makes no difference to a task here."""
    return [{name: _reduced(name, value) for name, value in row.items()} for row in rows]


def _reduced(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return NOW
    if isinstance(value, timedelta):
        return timedelta()
    return {"code": value["code"]} if name == "error" and value else value


def _plain(name: str, value: Any) -> Any:
    """Return a parameter without chance and time: a wait is a wait, whatever its length."""
    if name == "delay_s" and value is not None:
        return 60.0
    if isinstance(value, Jsonb):
        return Jsonb({key: part for key, part in value.obj.items() if key != "at"})
    return value


def _bare(value: Any) -> Any:
    return value.obj if isinstance(value, Jsonb) else str(value)
