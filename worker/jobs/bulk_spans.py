"""Which jobs the next batch of a bulk action takes. Apart from `bulk.py`, since it needs the models of SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from worker.jobs import filters, matching
from worker.jobs.models import Job

if TYPE_CHECKING:
    from worker.db.pool import Connection
    from worker.jobs.rows import Params

SPAN_JOBS = 2000
"""So many jobs of the table are compared with the filter at once, however few match."""
_NEWEST, _OLDEST = UUID(int=2**128 - 1), UUID(int=0)


class Batch(NamedTuple):
    """The jobs of a batch, newest first.

    Attributes:
        jobs: their ids.
        cursor: the next batch has older jobs than this.
        last: whether there is no next batch.
    """

    jobs: list[UUID]
    cursor: UUID
    last: bool


def next_batch(tx: Connection, query: str, cursor: UUID | None, limit: int) -> Batch:
    """Return the next jobs that match; some of `SPAN_JOBS`, perhaps none.

    Args:
        tx: a connection.
        query: the filter, in its canonical form.
        cursor: of the batch before; None for the first batch.
        limit: at most so many jobs.
    """
    before = cursor or _NEWEST
    row = tx.execute(
        "SELECT id FROM job WHERE id < %(before)s ORDER BY id DESC OFFSET %(skipped)s LIMIT 1",
        {"before": before, "skipped": SPAN_JOBS - 1},
    ).fetchone()
    end: UUID = _OLDEST if row is None else row["id"]
    statement, params = _matching(query)
    rows = tx.execute(statement, {**params, "before": before, "end": end, "at_most": limit})
    jobs = [each["id"] for each in rows]
    if len(jobs) == limit:
        return Batch(jobs, jobs[-1], last=False)
    return Batch(jobs, end, last=row is None)


def _matching(query: str) -> tuple[str, Params]:
    # in the statement, the span stands for the table; the fence has it read through the primary key
    span = text("SELECT * FROM job WHERE id < :before AND id >= :end ORDER BY id DESC OFFSET 0")
    wanted = select(Job.id).where(*matching.conditions(filters.parse(query)))
    found = wanted.add_cte(span.columns(Job.id).cte("job")).order_by(Job.id.desc()).limit(bindparam("at_most"))
    compiled = found.compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
    params = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in compiled.params.items()}
    return str(compiled), params
