"""Counts of jobs, by state, store, tenant, error code or the values of a label.

Counts are exact where that takes `EXACT_WITHIN_MS` at most. Live jobs are read through their own index; ended ones are
counted in an index that has all that they are grouped by but their labels. Else a sample of the table is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import func, literal_column, select, text, union_all
from sqlalchemy.exc import OperationalError

from worker.db.repetition import read
from worker.jobs import matching
from worker.jobs.filters import LABEL
from worker.jobs.models import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Row, Select
    from sqlalchemy.orm import Session

    from worker.db.pool import Database
    from worker.jobs.filters import Filter

GROUPS_MAX = 1000
EXACT_WITHIN_MS = 200
EXACT_TIMEOUT_MS = 10_000
"""Where an exact count was asked for; it does not hold a thread longer than this."""
SAMPLE_PAGES = 2000
"""So many pages of the table are a sample: some 20,000 jobs."""
SAMPLE_MIN_JOBS = 100
"""Of fewer jobs in a sample nothing follows: then all are counted after all, which are few."""
_COLUMNS = {"state": Job.state, "store": Job.store, "tenant": Job.tenant}
_BY_CODE = "error_code"
GROUPINGS = (*_COLUMNS, _BY_CODE, f"{LABEL}NAME")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs match a filter.

    Attributes:
        groups: the value and the number of jobs of each group, the largest first; at most `GROUPS_MAX`. The value of
            jobs that have none is None.
        total: of all groups.
        groups_total: how many groups there are.
        approximate: whether a sample was counted.
    """

    groups: list[tuple[str | None, int]]
    total: int
    groups_total: int
    approximate: bool


def count_jobs(database: Database, which: Filter, group_by: str, *, exact: bool = False) -> Counts:
    """Count the jobs that match, in groups.

    Args:
        database: where.
        which: the filter.
        group_by: one of `GROUPINGS`.
        exact: whether to count every job, however long it takes.

    Raises:
        OperationalError: an exact count takes longer than `EXACT_TIMEOUT_MS`.
    """
    branches = matching.branches(which, counted=True, by_code=group_by == _BY_CODE)
    if not branches:
        return Counts([], 0, 0, approximate=False)
    grouped = [_grouped(_value(group_by, each.code), each.conditions) for each in branches]
    try:
        rows = _run(database, _largest(grouped), EXACT_TIMEOUT_MS if exact else EXACT_WITHIN_MS)
    except OperationalError as error:
        if exact or not isinstance(error.orig, psycopg.errors.QueryCanceled):
            raise
    else:
        return _counts(rows, 1.0)
    return _sampled(database, which, group_by)


def _sampled(database: Database, which: Filter, group_by: str) -> Counts:
    [[pages]] = _run(database, select(literal_column("(SELECT relpages FROM pg_class WHERE oid = 'job'::regclass)")))
    share = min(1.0, SAMPLE_PAGES / max(1, int(pages)))
    grouped = _largest([_grouped(_value(group_by, matching.code()), matching.conditions(which))])
    # in the statement, the sample stands for the table
    sample = text(f"SELECT * FROM job TABLESAMPLE SYSTEM ({100 * share:f})").columns(Job.id).cte("job")  # noqa: S608
    rows = _run(database, grouped.add_cte(sample))
    if share < 1 and (not rows or rows[0].total < SAMPLE_MIN_JOBS):
        return count_jobs(database, which, group_by, exact=True)
    return _counts(rows, share)


def _value(group_by: str, code: ColumnElement[Any]) -> ColumnElement[Any]:
    if group_by == _BY_CODE:
        return code
    if group_by.startswith(LABEL):
        value: ColumnElement[Any] = Job.labels[group_by[len(LABEL) :]].astext
        return value
    return _COLUMNS[group_by].expression


def _grouped(value: ColumnElement[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    return select(value.label("value"), func.count().label("jobs")).where(*conditions).group_by(text("1"))


def _largest(grouped: Sequence[Select[Any]]) -> Select[Any]:
    """Return the largest groups of these counts, which may have values in common, and the totals of all."""
    found = union_all(*grouped).subquery("found")
    jobs = func.sum(found.c.jobs)
    return (
        select(
            found.c.value, jobs.label("jobs"), func.sum(jobs).over().label("total"), func.count().over().label("groups")
        )
        .group_by(found.c.value)
        .order_by(jobs.desc(), found.c.value)
        .limit(GROUPS_MAX)
    )


def _counts(rows: Sequence[Row[Any]], share: float) -> Counts:
    """Return the counts of a share of the table, as those of all of it."""
    if not rows:
        return Counts([], 0, 0, approximate=share < 1)
    groups = [(row.value, round(int(row.jobs) / share)) for row in rows]
    return Counts(groups, round(int(rows[0].total) / share), int(rows[0].groups), approximate=share < 1)


def _run(database: Database, statement: Select[Any], timeout_ms: int = EXACT_TIMEOUT_MS) -> Sequence[Row[Any]]:
    def work(session: Session) -> Sequence[Row[Any]]:
        session.connection(execution_options={"isolation_level": "READ COMMITTED"})
        session.execute(text(f"SET LOCAL statement_timeout = {timeout_ms}"))
        session.execute(text("SET LOCAL enable_seqscan = off"))  # the planner takes live jobs for spread over all pages
        return session.execute(statement).all()

    return read(database, work)
