"""What the API reads: jobs, their slices, their history, page by page. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import bindparam, func, literal_column, select, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import result_tuple

from worker.db.repetition import read, run_idempotent
from worker.errors import NotFound
from worker.jobs.models import Job, JobEvent, Slice
from worker.jobs.statements import sql
from worker.jobs.states import FINAL, JobState, SliceState, Step
from worker.jobs.waits import HELD_BACK, shown_code

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.orm import Session

    from worker.db.pool import Connection, Database
    from worker.jobs.api_keys import ApiKey

T = TypeVar("T")

PAGE_TIMEOUT_MS = 10_000
"""A filter that matches little may read much; it does not hold a thread longer than this."""
RATE_WINDOW_S = 10
RATE_OVERDUE_S = 3
"""A worker that sends reports every second; of one that has not reported for longer nothing more is expected."""
RATE_MOST_SLICES = 256
"""A faster link is measured over less than `RATE_WINDOW_S`: a reply must not read all slices of a large file."""
_CLOCK_SLACK_MS = (
    86_400_000  # ids carry the clock of the API's host, `created_at` the database's: a day apart is too much
)
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


_row = result_tuple([str(column.key) for column in (*_SHOWN, _IN_FLIGHT)])


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs to list; what is None or empty does not matter. Times are by `created_at`, the later one exclusive."""

    tenant: str | None = None
    states: Collection[JobState] = ()
    store: str | None = None
    key_prefix: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    error_code: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None


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
    params = {
        "job": job_id,
        "window_s": RATE_WINDOW_S,
        "overdue_s": RATE_OVERDUE_S,
        "most_slices": RATE_MOST_SLICES,
    }
    row = run_idempotent(database, lambda tx: tx.execute(sql("upload_rate"), params).fetchone()) or {}
    return int(row["bytes_per_s"])


def in_flight(row: Row[Any]) -> InFlight:
    """Return what is in flight of a job, by its row as `find_job` and `list_jobs` return it."""
    size_bytes, live_bytes, in_flight_bytes = row.in_flight
    return InFlight(size_bytes, live_bytes, in_flight_bytes)


def list_jobs(database: Database, which: Filter, *, after: UUID | None, limit: int) -> Page:
    """Return jobs, newest first, that are older than ``after``."""
    statement = _filtered(select(*_SHOWN, _IN_FLIGHT), which).order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        statement = statement.where(Job.id < after)

    def within_its_time(session: Session) -> Sequence[Row[*tuple[Any, ...]]]:
        session.execute(text(f"SET LOCAL statement_timeout = {PAGE_TIMEOUT_MS}"))
        return session.execute(statement).all()

    return _page(_read(database, within_its_time, "READ COMMITTED"), limit)


def _filtered(statement: Select[Any], which: Filter) -> Select[Any]:
    conditions = [
        None if which.tenant is None else Job.tenant == which.tenant,
        None if not which.states else Job.state.in_(which.states),
        None if which.store is None else Job.store == which.store,
        None if which.key_prefix is None else func.starts_with(Job.key, which.key_prefix),
        None if which.error_code is None else shown_code() == which.error_code,
        None if which.created_from is None else Job.created_at >= which.created_from,
        None if which.created_from is None else Job.id >= _first_id(which.created_from, -_CLOCK_SLACK_MS),
        None if which.created_before is None else Job.created_at < which.created_before,
        None if which.created_before is None else Job.id < _first_id(which.created_before, _CLOCK_SLACK_MS),
    ]
    if which.labels:  # the second condition is the index's own
        conditions += [Job.labels.contains(dict(which.labels)), Job.labels != text("'{}'::jsonb")]
    return statement.where(*(condition for condition in conditions if condition is not None))


def _first_id(moment: datetime, slack_ms: int) -> UUID:
    """Return the least UUIDv7 of the moment, so that a time is found through the index of ids."""
    milliseconds = int(moment.timestamp() * 1000) + slack_ms
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


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
