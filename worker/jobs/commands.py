"""What an operator or an owner does to a job that there is: cancel it, put it back to work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.errors import Conflict, NotFound
from worker.jobs import transitions
from worker.jobs.places import check_retry

if TYPE_CHECKING:
    from uuid import UUID

    from worker.config.profiles import Profiles
    from worker.db.pool import Connection
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.states import JobState


def cancel(tx: Connection, job_id: UUID, key: ApiKey) -> JobState:
    """Cancel a job that the key sees; returns its new state.

    Raises:
        NotFound: there is none.
        Conflict: ``not_cancellable``: it has ended.
    """
    _check_seen(tx, job_id, key)
    return transitions.cancel(tx, job_id, key.actor)


def retry(tx: Connection, job_id: UUID, key: ApiKey, profiles: Profiles, *, force: bool) -> JobState:
    """Put a failed, cancelled or paused job that the key sees back to work; returns its new state. In a transaction.

    Raises:
        NotFound: there is none.
        Conflict: ``key_busy``, ``superseded`` (unless forced), ``not_retryable`` or ``tenant_not_allowed``.
    """
    _check_seen(tx, job_id, key)
    try:
        state = transitions.retry(tx, job_id, key.actor, force=force)
    except Conflict as conflict:
        other = conflict.extra.get("job_id")
        if other is None or _is_seen(tx, other, key):
            raise
        raise Conflict(
            "a job of another tenant has put a newer object there since", code=conflict.code, advice=conflict.advice
        ) from None
    check_retry(tx, profiles, job_id)
    return state


def _check_seen(tx: Connection, job_id: UUID, key: ApiKey) -> None:
    if not _is_seen(tx, job_id, key):
        raise NotFound(f"there is no job {job_id}")


def _is_seen(tx: Connection, job_id: object, key: ApiKey) -> bool:
    row = tx.execute("SELECT tenant FROM job WHERE id = %s::uuid", (job_id,)).fetchone()
    return row is not None and key.sees(row["tenant"])
