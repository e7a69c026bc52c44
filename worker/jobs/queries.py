"""What the API reads: jobs, their slices, their history, page by page. Reads only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple, TypeVar

import psycopg
from sqlalchemy import bindparam, func, literal_column, select, text, union_all
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import result_tuple
from sqlalchemy.exc import OperationalError

from worker.db.repetition import read, run_idempotent
from worker.errors import NotFound
from worker.jobs import matching
from worker.jobs.filters import Filter
from worker.jobs.models import Job, JobEvent, Slice
from worker.jobs.statements import sql
from worker.jobs.states import FINAL, LIVE, JobState, SliceState, Step
from worker.jobs.waits import HELD_BACK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.orm import Session

    from worker.db.pool import Connection, Database
    from worker.jobs.api_keys import ApiKey

T = TypeVar("T")

PAGE_TIMEOUT_MS = 10_000
"""A filter that matches little may read much; it does not hold a thread longer than this."""
FIRST_TRY_MS = 50
"""Time in which a page of jobs in their order is found, as a rule in a hundredth of it."""
RATES_MOST = 50
"""So many jobs of a page have a rate."""
RATE_WINDOW_S = 10
RATE_OVERDUE_S = 3
"""A worker that sends reports every second; of one that has not reported for longer nothing more is expected."""
RATE_MOST_SLICES = 256
"""A faster link is measured over less than `RATE_WINDOW_S`: a reply must not read all slices of a large file."""
_SHOWN = (
    *(Job.id, Job.tenant, Job.state, Job.priority, Job.epoch, Job.source, Job.store, Job.key, Job.overwrite),
    *(Job.attributes, Job.labels, Job.verify, Job.slice_size, Job.retry_for_s, Job.idempotency_key),
    *(Job.size_bytes, Job.slice_bytes, Job.slices_total, Job.slices_left, Job.bytes_done, Job.attempts),
    *(Job.paused_at, Job.pause_reason, Job.not_before, Job.failing_since, Job.error, Job.result),
    *(Job.created_at, Job.started_at, Job.finished_at, Job.updated_at),
    *(Job.step, Job.target, HELD_BACK),
)
"""The columns that the API reports of a job: neither its session nor its digests, which are large and internal."""
_IN_FLIGHT: ColumnElement[Any] = literal_column(f"({sql('in_flight')})").label("in_flight")
"""A column of a job's own row; the planner computes it for the rows of a page only, after sorting and limiting."""


_RATE_PARAMS = {"window_s": RATE_WINDOW_S, "overdue_s": RATE_OVERDUE_S, "most_slices": RATE_MOST_SLICES}
_row = result_tuple([str(column.key) for column in (*_SHOWN, _IN_FLIGHT)])


class InFlight(NamedTuple):
    """What is acknowledged of a job's content and not done yet.

    Attributes:
        size_bytes: of the file, as far as it is known.
        live_bytes: what is acknowledged of what is being sent now.
        bytes: what is acknowledged, in earlier attempts too: with what is done, it falls with a new epoch only.
    """

    size_bytes: int | None
    live_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and after which to go on; ``more`` is false at the end."""

    rows: Sequence[Row[*tuple[Any, ...]]]
    more: bool


def _read(database: Database, work: Callable[[Session], T], isolation_level: str = "AUTOCOMMIT") -> T:
    def isolated(session: Session) -> T:
        session.connection(execution_options={"isolation_level": isolation_level})
        return work(session)

    return read(database, isolated)


def find_job(database: Database, job_id: UUID, key: ApiKey) -> Row[Any]:
    """Return the job's row as the API reports it.

    Raises:
        NotFound: there is none that the key sees.
    """
    statement, params = _find_job()
    row = run_idempotent(database, lambda tx: tx.execute(statement, {**params, "job": job_id}).fetchone())
    if row is None or not key.sees(row["tenant"]):
        raise NotFound(f"there is no job {job_id}")
    return _row(tuple(row.values()))


@cache
def _find_job() -> tuple[str, Mapping[str, Any]]:
    """Return the statement as text, and its constants: a session of SQLAlchemy takes longer than all the rest."""
    statement = select(*_SHOWN, _IN_FLIGHT).where(Job.id == bindparam("job"))
    compiled = statement.compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
    return str(compiled), compiled.params


def upload_rate(database: Database, job_id: UUID) -> int:
    """Return the bytes a second that were acknowledged in the last `RATE_WINDOW_S` seconds, or since the job sends."""
    params = {"job": job_id, **_RATE_PARAMS}
    row = run_idempotent(database, lambda tx: tx.execute(sql("upload_rate"), params).fetchone()) or {}
    return int(row["bytes_per_s"])


def in_flight(row: Row[Any]) -> InFlight:
    """Return what is in flight of a job, by its row as `find_job` and `list_jobs` return it."""
    size_bytes, live_bytes, in_flight_bytes = row.in_flight
    return InFlight(size_bytes, live_bytes, in_flight_bytes)


def upload_rates(database: Database, rows: Sequence[Row[Any]]) -> dict[UUID, int]:
    """Return the same of the first jobs of a page that upload, by their rows; `RATES_MOST` of them."""
    jobs = [row.id for row in rows if row.state == JobState.UPLOADING or in_flight(row).live_bytes > 0][:RATES_MOST]
    if not jobs:
        return {}
    params = {"jobs": jobs, **_RATE_PARAMS}
    found = run_idempotent(database, lambda tx: tx.execute(_upload_rates(), params).fetchall())
    return {row["id"]: int(row["bytes_per_s"]) for row in found}


@cache
def _upload_rates() -> LiteralString:
    of_one = sql("upload_rate").replace("%(job)s", "j.id")
    return f"SELECT j.id, ({of_one}) AS bytes_per_s FROM unnest(%(jobs)s::uuid[]) AS j(id)"  # noqa: S608 - our own


def list_jobs(database: Database, which: Filter, *, after: UUID | None, limit: int, oldest_first: bool = False) -> Page:
    """Return jobs by age, the next ones after ``after``.

    The first statement reads jobs in their order until the page is full, which is the fastest where many match. Where
    few match it would read the whole table: after `FIRST_TRY_MS` the second one finds all of them through the indexes.
    """
    order = Job.id.asc() if oldest_first else Job.id.desc()
    of_page = [] if after is None else [Job.id > after if oldest_first else Job.id < after]
    columns = select(*_SHOWN, _IN_FLIGHT).order_by(order)
    in_order = columns.where(*matching.conditions(which), *of_page).limit(limit + 1)
    found = []
    for branch in matching.branches(which):
        ids = select(Job.id).where(*branch.conditions, *of_page)
        found.append(select(ids.order_by(order).limit(limit + 1).subquery().c.id) if branch.in_order else ids)
    if not found:
        return Page([], more=False)
    if _is_ordered_by_an_index(which):
        return _page(_within(database, in_order, PAGE_TIMEOUT_MS), limit)
    # the planner knows neither that live jobs are the newest ones, nor how few have an error
    hopeless = which.error_code is not None or (oldest_first and set(which.states or FINAL) <= set(LIVE))
    with suppress(_TookTooLong):
        if not hopeless:
            return _page(_within(database, in_order, FIRST_TRY_MS), limit)
    every = union_all(*found).cte("found").prefix_with("MATERIALIZED")
    page = select(every.c.id).order_by(every.c.id.asc() if oldest_first else every.c.id.desc()).limit(limit + 1)
    return _page(_within(database, columns.where(Job.id.in_(page)), PAGE_TIMEOUT_MS), limit)


def _is_ordered_by_an_index(which: Filter) -> bool:
    """Say whether the jobs that match follow each other in an index: all of a tenant or of a time do."""
    free = replace(which, tenant=None, created_from=None, created_before=None, newer_than_s=None, older_than_s=None)
    return free == Filter()


class _TookTooLong(Exception):
    """A statement was stopped at its time limit."""


def _within(database: Database, statement: Select[Any], timeout_ms: int) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the rows of a statement.

    Args:
        database: where.
        statement: reads.
        timeout_ms: when it is stopped.

    Raises:
        _TookTooLong: at ``timeout_ms``, if that is less than `PAGE_TIMEOUT_MS`.
    """

    def work(session: Session) -> Sequence[Row[*tuple[Any, ...]]]:
        session.execute(text(f"SET LOCAL statement_timeout = {timeout_ms}"))
        session.execute(text("SET LOCAL enable_seqscan = off"))  # the planner takes live jobs for spread over all pages
        return session.execute(statement).all()

    try:
        return _read(database, work, "READ COMMITTED")
    except OperationalError as error:
        if timeout_ms < PAGE_TIMEOUT_MS and isinstance(error.orig, psycopg.errors.QueryCanceled):
            raise _TookTooLong from error
        raise


def under_way(database: Database, job_ids: Collection[UUID]) -> set[UUID]:
    """Return which of the jobs have a step or a slice that a worker is at."""
    steps = select(Job.id).where(Job.id.in_(job_ids), Job.step == Step.RUNNING)
    slices = select(Slice.job_id).where(Slice.job_id.in_(job_ids), Slice.state == SliceState.SENDING)
    return _read(database, lambda session: set(session.scalars(steps.union(slices))))


def next_slice_attempts(database: Database, job_ids: Collection[UUID]) -> dict[UUID, datetime]:
    """Return of each of the jobs the time of the next attempt of the slices that wait for one, where some do."""
    statement = (
        select(Slice.job_id, func.min(Slice.not_before).label("next_at"))
        .where(Slice.job_id.in_(job_ids), Slice.state == SliceState.PENDING, Slice.not_before.is_not(None))
        .group_by(Slice.job_id)
    )
    return _read(database, lambda session: {row.job_id: row.next_at for row in session.execute(statement)})


def list_slices(database: Database, job_id: UUID, *, after: int, limit: int) -> Page:
    """Return the slices of a live or failed job by number, those above ``after``."""
    statement = (
        select(
            *(
                Slice.number,
                Slice.offset_bytes,
                Slice.size_bytes,
                Slice.state,
                Slice.attempts,
                Slice.sends,
                Slice.deaths,
            ),
            *(Slice.not_before, Slice.error, Slice.tag, Slice.digest, Slice.done_at),
        )
        .where(Slice.job_id == job_id, Slice.number > after)
        .order_by(Slice.number)
        .limit(limit + 1)
    )
    return _page(_read(database, lambda session: session.execute(statement).all()), limit)


def list_events(database: Database, job_id: UUID, *, after: int, limit: int) -> Page:
    """Return the history of a job, oldest first, the events above ``after``."""
    columns = (JobEvent.id, JobEvent.at, JobEvent.kind, JobEvent.from_state, JobEvent.to_state, JobEvent.epoch)
    statement = (
        select(*columns, JobEvent.actor, JobEvent.cause)
        .where(JobEvent.job_id == job_id, JobEvent.id > after)
        .order_by(JobEvent.id)
        .limit(limit + 1)
    )
    return _page(_read(database, lambda session: session.execute(statement).all()), limit)


def _page(rows: Sequence[Row[*tuple[Any, ...]]], limit: int) -> Page:
    return Page(rows[:limit], more=len(rows) > limit)


def ended(tx: Connection, job_ids: Collection[UUID]) -> set[UUID]:
    """Return which of the jobs are in a final state (or are not there any more)."""
    rows = tx.execute(
        "SELECT id FROM job WHERE id = ANY(%s) AND state <> ALL(%s)", (list(job_ids), [str(state) for state in FINAL])
    )
    return set(job_ids) - {row["id"] for row in rows}
