"""What holds live jobs back beside a time: their pause, their store's breaker, and holds. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.db.pool import Connection


class HeldBack(NamedTuple):
    """One thing that holds a job back.

    Attributes:
        by: `job_paused`, `store_unusable`, `store_paused`, `tenant_paused` or `queue_paused`.
        reason: in words; None if none was given.
        since: when it began.
    """

    by: str
    reason: str | None
    since: datetime


def held_back(tx: Connection, job_id: UUID) -> Sequence[HeldBack]:
    """Return all that holds a job back; nothing for a job that has ended."""
    return [HeldBack(**row) for row in tx.execute(sql("held_back"), {"job": job_id})]
