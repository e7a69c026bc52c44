"""The rows of one job as a value, and the product's own statements as functions over such values.

A statement runs on a real PostgreSQL: the rows are written, it runs, the rows are read, all of it is rolled back. What
it did is remembered, so that each statement runs once for the same rows and parameters however often the search comes
by. Times are reduced to what the statements ask of them: whether a lease or a wait is over.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

import worker.jobs
from worker.db import sql
from worker.errors import Conflict, StaleClaim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.db import Tx

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

TABLES = ("job", "slice", "worker", "breaker")
_WRITE = "WITH " + ", ".join(
    f"t{n} AS (INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %(rows)s::jsonb -> '{table}'))"
    for n, table in enumerate(TABLES)
) + " SELECT"  # fmt: skip
_READ = "SELECT " + ", ".join(
    f"(SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY to_jsonb(t)), '[]') FROM {table} t) AS {table}"
    for table in TABLES
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a statement did: the rows after it, and what it returned; ``refused`` names the refusal that it met."""

    rows: int
    found: Any = None
    refused: str = ""


class Rows:
    """Every state that the rows were ever in, by number; and every statement that ran on one."""

    def __init__(self, tx: Tx, mutations: Mapping[str, tuple[str, str]] | None = None) -> None:
        """Begin with empty tables.

        Args:
            tx: a connection to a migrated database of one's own.
            mutations: statement -> words in it and what to put in their place: to see that a guard is missed.
        """
        self.runs = 0
        self._tx = tx
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []
        self._read: dict[int, dict[str, list[Row]]] = {}
        self._done: dict[tuple[int, str], Change] = {}
        self._mutations = dict(mutations or {})
        for name, (words, _) in self._mutations.items():
            assert words in sql(name), f"{name} has no {words!r} to be changed"
        self.empty = self._number({table: [] for table in TABLES})

    def __len__(self) -> int:
        return len(self._texts)

    def of(self, number: int) -> dict[str, list[Row]]:
        """Return the rows of a state, by table."""
        if number not in self._read:
            self._read[number] = json.loads(self._texts[number])
        return self._read[number]

    def job(self, number: int) -> Row:
        """Return the job's row."""
        return self.of(number)["job"][0]

    def run(self, number: int, name: str, act: Callable[[Tx], Any]) -> Change:
        """Run something of this name on the rows; its name must say all that it depends on."""
        key = (number, name)
        if key not in self._done:
            self._done[key] = self._really(number, act)
        return self._done[key]

    def statement(self, number: int, name: str, params: Row) -> Change:
        """Run one of the product's statements on the rows."""
        params = plain(params)
        text = self._changed(name)
        key = f"{name} {json.dumps(params, default=_bare, sort_keys=True)}"
        return self.run(number, key, lambda tx: _fetched(tx, text, params))

    def _changed(self, name: str) -> Any:
        words, instead = self._mutations.get(name, ("", ""))
        text: str = self.statements[name]
        return text.replace(words, instead) if words else text

    @cached_property
    def statements(self) -> dict[str, str]:
        """The product's statements, by name; `note` is the one without a file."""
        folder = Path(worker.jobs.__file__).parent / "sql"
        return {path.stem: sql(path.stem) for path in folder.glob("*.sql")}

    def _really(self, number: int, act: Callable[[Tx], Any]) -> Change:
        self.runs += 1
        found, refused = None, ""
        with self._tx.transaction(force_rollback=True):
            self._tx.execute(_WRITE, {"rows": self._texts[number]})
            try:
                with self._tx.transaction():
                    found = act(self._tx)
            except (StaleClaim, Conflict) as error:
                refused = error.code
            row = self._tx.execute(_READ).fetchone()
        assert row is not None
        return Change(self._number(row), found, refused)

    def _number(self, rows: Mapping[str, list[Row]]) -> int:
        text = json.dumps({table: [canonical(row) for row in rows[table]] for table in TABLES}, sort_keys=True)
        if text not in self._numbers:
            self._numbers[text] = len(self._texts)
            self._texts.append(text)
        return self._numbers[text]


def _fetched(tx: Tx, text: Any, params: Row) -> list[Row]:
    cursor = tx.execute(text, params)
    return cursor.fetchall() if cursor.description else []


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
        made["result"] = {"proof": row["result"].get("proof"), "left_open": row["result"].get("session_left_open")}
    if "finish_claims" in row:
        made["finish_claims"] = min(1, row["finish_claims"])
    if made.get("heartbeat_at"):
        made["heartbeat_at"] = NOT_OVER  # lives until it is taken for dead
    return made


def plain(params: Row) -> Row:
    """Return parameters without chance and time: a wait is a wait, whatever its length."""
    return {name: _plain(name, value) for name, value in params.items()}


def _plain(name: str, value: Any) -> Any:
    if name == "again_s" and value is not None:
        return 60.0
    if isinstance(value, Jsonb):
        return Jsonb({key: part for key, part in value.obj.items() if key != "at"})
    return value


def _bare(value: Any) -> Any:
    return value.obj if isinstance(value, Jsonb) else str(value)
