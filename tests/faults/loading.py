"""Loads histories, journals and the store's contents into the database, line by line, and derives tables from them."""

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

    from tests.faults.store_contents import StoreContents

_SQL = Path(__file__).parent / "sql"
_OPERATION = " ".join(Operation.__slots__)
_NOTE = " ".join(Note.__slots__)
_BLOCK_BYTES = 1024 * 1024


def load(
    connection: psycopg.Connection[Any],
    *,
    recorded: Iterable[Path],
    journals: Iterable[Path],
    contents: StoreContents,
    secrets: Sequence[str],
) -> None:
    """Fill the tables of `sql/tables.sql`, and derive those of `sql/identify.sql`; see `checker.check`."""
    _run(connection, "tables")
    files = list(recorded)
    for table, columns, kind in (("operation", _OPERATION, Operation), ("note", _NOTE, Note)):
        _copy(connection, table, columns, (_values(each, columns) for each in read(files) if isinstance(each, kind)))
    _load_journals(connection, journals)
    _copy(connection, "allowed", "kind was event state", _allowed())
    _copy(connection, "secret", "secret", ((secret,) for secret in secrets))
    _copy(connection, "open_session", "key session", contents.open_sessions())
    _run(connection, "identify")
    keys = connection.execute(
        "SELECT key FROM job UNION SELECT key FROM history.operation WHERE op = 'plant_object'"
    ).fetchall()
    _copy(connection, "object", "key sha1", contents.sha1s(key for (key,) in keys))
    _load_sources(connection)


def derive(connection: psycopg.Connection[Any]) -> None:
    """Derive all tables anew from the loaded ones."""
    _run(connection, "identify")
    _run(connection, "derive")


def _run(connection: psycopg.Connection[Any], name: str) -> None:
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
    # JSON lines contain neither the delimiter nor the quote: each line is one value
    statement = r"COPY history.journal FROM STDIN WITH (FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02')"
    for journal in journals:
        with connection.cursor() as cursor, cursor.copy(statement) as copy, journal.open("rb") as stream:
            rest = b""
            while block := stream.read(_BLOCK_BYTES):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                copy.write(whole + newline)
    _run(connection, "journal")


def _allowed() -> Iterator[tuple[str, str | None, str | None, str]]:
    for move in MOVES:
        yield "job", move.source, move.event, move.target
    yield "job", "queued", None, "cancelled"  # two moves in one statement, for a job that has not started
    for source, target in SLICE_MOVES:
        yield "slice", source, None, target


def _load_sources(connection: psycopg.Connection[Any]) -> None:
    """Load the digests of the slices of every source that has not changed since."""
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
    """The digest of each slice of a file; none if the file does not have the given digest."""
    whole, ranges = hashlib.sha1(usedforsecurity=False), []
    try:
        with file.open("rb") as stream:
            while piece := stream.read(slice_bytes):
                whole.update(piece)
                ranges.append(hashlib.sha1(piece, usedforsecurity=False).hexdigest())
    except OSError:
        return []
    return ranges if whole.hexdigest() == sha1 else []
