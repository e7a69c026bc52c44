"""Why a job waits, also where no worker has written it into the job's own row."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from worker.errors import StoreUnusable
from worker.jobs import queries
from worker.jobs.places import check_tenant, store_of
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Row

    from api.state import AppState


class _Reason(NamedTuple):
    """What to show in place of the job's own error, and since when it is so, where that is known."""

    error: dict[str, Any] | None
    since: datetime | None = None


def waits(app_state: AppState, rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    """Return `waiting` and `error` of each job as people see them."""
    reasons = _reasons(app_state, rows)
    return [_shown(row, reasons.get(row.id, _Reason(row.error))) for row in rows]


def _shown(row: Row[Any], reason: _Reason) -> dict[str, Any]:
    since = row.failing_since or reason.since
    waiting = {
        "not_before": row.not_before,
        "failing_since": since,
        "paused_at": row.paused_at,
        "pause_reason": row.pause_reason,
    }
    waits = any((row.not_before, since, row.paused_at))
    return {"waiting": waiting if waits else None, "error": redact_json(reason.error)}


def _reasons(app_state: AppState, rows: Sequence[Row[Any]]) -> dict[UUID, _Reason]:
    """Return why jobs wait for their store: the API's stores file serves them no longer, or its breaker is open.

    A job with something under way waits for neither.
    """
    found = {
        row.id: _Reason(row.held_back["error"], datetime.fromisoformat(row.held_back["since"]))
        for row in rows
        if row.held_back is not None
    }
    changed = {
        row.id: error for row in rows if row.finished_at is None and (error := _changed(app_state, row)) is not None
    }
    if changed:
        sending = queries.under_way(app_state.database, list(changed))
        found |= {job: _Reason(error) for job, error in changed.items() if job not in sending}
    return found


def _changed(app_state: AppState, row: Row[Any]) -> dict[str, Any] | None:
    try:
        store_of(app_state.settings.profiles, row.store, row.key, row.target)
        check_tenant(app_state.settings.profiles, row.tenant, row.store, row.key, row.source)
    except StoreUnusable as error:
        if (row.error or {}).get("code") == error.code:
            return None  # a worker has said so, and when
        return {"code": error.code, "message": f"{error.message}, by the API's stores file", "advice": error.advice}
    return None
