"""Brings what lies outside the database into it, line by line, and says what follows from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from tests.faults.history import Note, Operation, read
from worker.jobs.states import MOVES, SLICE_MOVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    from tests.faults.stored import Stored

_SQL = Path(__file__).parent / "sql"
_ASK = "client op began ended outcome status job state session tenant key overwrite idempotency_key path sha1 size"
_NOTE = "at what name path sha1 size"
_BLOCK_BYTES = 1024 * 1024


def load(
    connection: psycopg.Connection[Any],
    *,
    recorded: Iterable[Path],
    journals: Iterable[Path],
    stored: Stored,
    secrets: Sequence[str],
) -> None:
    """Fill the tables of `sql/tables.sql`, and identify whose is what; see `checker.check` for the arguments."""
    run(connection, "tables")
    known = list(recorded)
    _copy(connection, "ask", _ASK, (_values(each, _ASK) for each in read(known) if isinstance(each, Operation)))
    _copy(connection, "note", _NOTE, (_values(each, _NOTE) for each in read(known) if isinstance(each, Note)))
    _load_journals(connection, journals)
    _copy(connection, "allowed", "kind was event state", _allowed())
    _copy(connection, "secret", "word", ((word,) for word in secrets))
    _copy(connection, "open_session", "key session", stored.open_sessions())
    run(connection, "identify")
    keys = connection.execute(
        "SELECT key FROM job UNION SELECT key FROM history.ask WHERE op = 'plant_object'"
    ).fetchall()
    _copy(connection, "object", "key sha1", stored.sha1s(key for (key,) in keys))
    _load_sources(connection)


def derive(connection: psycopg.Connection[Any]) -> None:
    """Say anew what follows from what is loaded."""
    run(connection, "identify")
    run(connection, "derive")


def run(connection: psycopg.Connection[Any], name: str) -> None:
    """Run the statements of a file in `sql/`."""
    connection.execute((_SQL / f"{name}.sql").read_bytes())


def _copy(connection: psycopg.Connection[Any], table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns.split()))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier("history", table), names)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _values(each: object, columns: str) -> list[object]:
    return [getattr(each, name) for name in columns.split()]


def _load_journals(connection: psycopg.Connection[Any], journals: Iterable[Path]) -> None:
    connection.execute("CREATE TABLE history.journal (line jsonb)")
    # no character of JSON delimits or quotes here: a line is a value as it stands
    statement = r"COPY history.journal FROM STDIN WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')"
    for journal in journals:
        with connection.cursor() as cursor, cursor.copy(statement) as copy, journal.open("rb") as stream:
            rest = b""
            while block := stream.read(_BLOCK_BYTES):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                copy.write(whole + newline)
    run(connection, "journal")


def _allowed() -> Iterator[tuple[str, str | None, str | None, str]]:
    for move in MOVES:
        yield "job", move.source, move.event, move.target
    yield "job", "queued", None, "cancelled"  # two moves at once, where nothing was ever begun
    for source, target in SLICE_MOVES:
        yield "slice", source, None, target


def _load_sources(connection: psycopg.Connection[Any]) -> None:
    """Take the digests of the ranges of every source of which slices were made, where it still is what it was."""
    wanted = connection.execute(
        """SELECT o.sha1, array_agg(DISTINCT j.path), array_agg(DISTINCT s.slice_bytes)
           FROM history.only_source o
           JOIN history.job_source j USING (job_id, sha1) JOIN history.session s USING (job_id)
           WHERE s.slice_bytes > 0 GROUP BY o.sha1"""
    ).fetchall()
    rows = (
        (sha1, slice_bytes, number, digest)
        for sha1, paths, sizes in wanted
        for slice_bytes in sizes
        for number, digest in enumerate(_ranges_of_any(paths, sha1, slice_bytes))
    )
    _copy(connection, "source_slice", "sha1 slice_bytes number slice_sha1", rows)


def _ranges_of_any(paths: Sequence[str], sha1: str, slice_bytes: int) -> list[str]:
    return next((found for path in paths if (found := _ranges(Path(path), sha1, slice_bytes))), [])


def _ranges(file: Path, sha1: str, slice_bytes: int) -> list[str]:
    """The digest of each slice of a file, if the file has this digest; else none."""
    whole, ranges = hashlib.sha1(usedforsecurity=False), []
    try:
        with file.open("rb") as stream:
            while piece := stream.read(slice_bytes):
                whole.update(piece)
                ranges.append(hashlib.sha1(piece, usedforsecurity=False).hexdigest())
    except OSError:
        return []
    return ranges if whole.hexdigest() == sha1 else []
