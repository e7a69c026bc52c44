"""Why a job waits, also where no worker has recorded it in the job's row."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from api.views.base import UtcDateTime
from worker.jobs import queries
from worker.jobs.places import wait_error
from worker.jobs.states import JobState, Step
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Row

    from api.state import AppState


class Waiting(BaseModel):
    """What a job waits for, as far as its row says; `/why` has the reasons. A queued job always waits."""

    not_before: UtcDateTime | None
    failing_since: UtcDateTime | None
    paused_at: UtcDateTime | None
    pause_reason: str | None


class _Reason(NamedTuple):
    """The error to return in place of the job's own, and its beginning, if that is known."""

    error: dict[str, Any] | None
    since: datetime | None = None


def waiting_fields(app_state: AppState, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Return the fields `waiting`, `next_attempt_at` and `error` of each job's view."""
    reasons = _reasons(app_state, rows)
    failing = [row.id for row in rows if row.state == JobState.UPLOADING and row.failing_since is not None]
    attempts = queries.next_slice_attempts(app_state.database, failing) if failing else {}
    return [_fields(row, reasons.get(row.id, _Reason(row.error)), attempts.get(row.id)) for row in rows]


def _fields(row: Row[Any], reason: _Reason, slice_attempt_at: datetime | None) -> dict[str, Any]:
    since = row.failing_since or reason.since
    waiting = {
        "not_before": row.not_before,
        "failing_since": since,
        "paused_at": row.paused_at,
        "pause_reason": row.pause_reason,
    }
    waits = row.step in {Step.PENDING, Step.DISPATCHED} or any((row.not_before, since, row.paused_at))
    return {
        "waiting": waiting if waits else None,
        "next_attempt_at": row.not_before or slice_attempt_at,
        "error": redact_json(reason.error),
    }


def _reasons(app_state: AppState, rows: Sequence[Row[Any]]) -> dict[UUID, _Reason]:
    """Return why jobs wait for their store: its breaker is open, or the API's stores file no longer allows the job.

    A job with a step or a slice under way waits for neither.
    """
    found = {
        row.id: _Reason(row.held_back["error"], datetime.fromisoformat(row.held_back["since"]))
        for row in rows
        if row.held_back is not None
    }
    not_allowed = {
        row.id: error for row in rows if row.finished_at is None and (error := _not_allowed(app_state, row)) is not None
    }
    if not_allowed:
        under_way = queries.under_way(app_state.database, list(not_allowed))
        found |= {job: _Reason(error) for job, error in not_allowed.items() if job not in under_way}
    return found


def _not_allowed(app_state: AppState, row: Row[Any]) -> dict[str, Any] | None:
    """Return the error of a job that the stores file, as it is now, does not allow."""
    error = wait_error(app_state.settings.profiles, row)
    return None if error is None else {"code": error.code, "message": error.message, "advice": error.advice}
