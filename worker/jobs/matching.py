"""A filter as SQL conditions on the table of jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import Boolean, ColumnElement, case, exists, func, literal_column, not_, null, select, text

from worker.jobs.models import Breaker, Job
from worker.jobs.states import FINAL, LIVE, JobState
from worker.jobs.waits import shown_code

if TYPE_CHECKING:
    from collections.abc import Collection

    from worker.jobs.filters import Filter

_CLOCK_SLACK_MS = (
    86_400_000  # ids carry the clock of the API's host, `created_at` the database's: a day apart is too much
)
_SURROGATES = range(0xD800, 0xE000)
_LAST_CODE_POINT = 0x10FFFF
_LIVE = Job.finished_at.is_(None)
_ENDED = Job.finished_at.is_not(None)
_OWN_CODE = Job.error["code"].astext
WITH_ERROR = {JobState.FAILED, JobState.CANCELLED}


def _in(states: Collection[JobState]) -> ColumnElement[bool]:
    """Return a condition on the state, written out: only then is an index found that has no other states."""
    return literal_column(f"job.state IN ({', '.join(repr(str(state)) for state in sorted(states))})", Boolean)


_UNRECORDED = (_in(WITH_ERROR), Job.failure_code.is_(None))
"""A job that release 0.1 has ended beside this one: its row may have an error and has no `failure_code`."""


class Branch(NamedTuple):
    """Some of the jobs that match, by conditions that an index serves; the branches of a filter have no job in common.

    Attributes:
        conditions: all of them hold.
        code: of the error with which a job of this branch is shown.
        in_order: whether an index has the conditions and the order of the ids: it has the next jobs first.
    """

    conditions: list[ColumnElement[bool]]
    code: ColumnElement[Any]
    in_order: bool = False


def conditions(which: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter; all of them hold for a job that matches."""
    found = _common(which)
    if which.states:
        found.append(_in(which.states))
        if set(which.states) <= set(LIVE):
            found.append(_LIVE)  # follows from the state, but the planner does not know it
        elif set(which.states) <= set(FINAL):
            found.append(_ENDED)
    if which.error_code is not None:
        found.append(code() == which.error_code)
    return found


def branches(which: Filter, *, counted: bool = False, by_code: bool = False) -> list[Branch]:
    """Return branches that have together the jobs that match.

    Args:
        which: the filter.
        counted: whether the jobs are counted by what `ix_job_ended` holds, and not found by their ids.
        by_code: whether the code of a branch is needed.
    """
    found = []
    states = set(which.states or JobState)
    if live := states.intersection(LIVE):
        wanted = [] if which.error_code is None else [code() == which.error_code]
        found.append(Branch([_LIVE, *_of_states(live, LIVE), *_common(which), *wanted], code()))
    if ended := states.intersection(FINAL):
        others = [*_common(which), *_key_range(which)]
        if which.error_code is None:
            by_code = by_code and not ended.isdisjoint(WITH_ERROR)
            found += _ended([_ENDED, *_of_states(ended, FINAL), *others], by_code=by_code)
        elif ended := ended.intersection(WITH_ERROR):
            others.append(_in(ended))
            recorded = [*([_ENDED] if counted else []), *others, Job.failure_code == which.error_code]
            unrecorded = [_ENDED, *others, Job.failure_code.is_(None), which.error_code == _OWN_CODE]
            found += [Branch(recorded, Job.failure_code.expression, in_order=True), Branch(unrecorded, _OWN_CODE)]
    return found


def _ended(common: list[ColumnElement[bool]], *, by_code: bool) -> list[Branch]:
    if not by_code:
        return [Branch(common, null())]
    recorded = case((_in(WITH_ERROR), Job.failure_code))  # a worker of 0.1 leaves the code there when it retries a job
    others = [*common, not_(_in(WITH_ERROR)) | Job.failure_code.is_not(None)]
    return [Branch(others, recorded), Branch([*common, *_UNRECORDED], _OWN_CODE)]


def _of_states(states: Collection[JobState], of: Collection[JobState]) -> list[ColumnElement[bool]]:
    return [] if set(states) == set(of) else [_in(states)]


def code() -> ColumnElement[Any]:
    """Return the same as `shown_code`; as a rule no breaker is open, which is found out once and not for each job."""
    return case((exists(select(literal_column("1")).select_from(Breaker)), shown_code()), else_=_OWN_CODE)


def _common(which: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions that are the same for live and for ended jobs."""
    found = [
        None if which.tenant is None else Job.tenant == which.tenant,
        None if which.store is None else Job.store == which.store,
        None if which.key_prefix is None else func.starts_with(Job.key, which.key_prefix),
        None if which.created_from is None else Job.created_at >= which.created_from,
        None if which.created_from is None else Job.id >= _first_id(which.created_from, -_CLOCK_SLACK_MS),
        None if which.created_before is None else Job.created_at < which.created_before,
        None if which.created_before is None else Job.id < _first_id(which.created_before, _CLOCK_SLACK_MS),
    ]
    if which.newer_than_s is not None:
        found += [Job.created_at >= _ago(which.newer_than_s), Job.id >= _id_ago(which.newer_than_s, -_CLOCK_SLACK_MS)]
    if which.older_than_s is not None:
        found += [Job.created_at < _ago(which.older_than_s), Job.id < _id_ago(which.older_than_s, _CLOCK_SLACK_MS)]
    if which.labels:  # the second condition is the index's own
        found += [Job.labels.contains(dict(which.labels)), Job.labels != text("'{}'::jsonb")]
    return [condition for condition in found if condition is not None]


def _ago(seconds: int) -> ColumnElement[Any]:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _id_ago(seconds: int, slack_ms: int) -> UUID:
    return _first_id(datetime.now(UTC) - timedelta(seconds=seconds), slack_ms)


def _first_id(moment: datetime, slack_ms: int) -> UUID:
    """Return the least UUIDv7 of the moment, so that a time is found through the index of ids."""
    milliseconds = int(moment.timestamp() * 1000) + slack_ms
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def _key_range(which: Filter) -> list[ColumnElement[bool]]:
    """Return the range of keys with the prefix, in the order of their bytes, as the index of keys has it."""
    if which.key_prefix is None:
        return []
    found: list[ColumnElement[bool]] = [Job.key.op("~>=~", is_comparison=True)(which.key_prefix)]
    if (end := first_after(which.key_prefix)) is not None:
        found.append(Job.key.op("~<~", is_comparison=True)(end))
    return found


def first_after(prefix: str) -> str | None:
    """Return the first text after all that begin so, by code points; None where there is none."""
    kept = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
