"""What holds live jobs back beside a time: their pause, and their store's breaker. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.db.pool import Connection


@dataclass(frozen=True, slots=True)
class HeldBack:
    """One thing that holds a job back.

    Attributes:
        by: `job_paused`, or `store_unusable`.
        reason: in words; None if none was given.
        since: when it began.
    """

    by: str
    reason: str | None
    since: datetime


def held_back(tx: Connection, job_id: UUID) -> Sequence[HeldBack]:
    """Return all that holds a job back; nothing for a job that has ended."""
    row = tx.execute(sql("held_back"), {"job": job_id}).fetchone()
    return [] if row is None else list(_of_row(row))


def _of_row(row: Mapping[str, Any]) -> Iterator[HeldBack]:
    if row["paused_at"] is not None:
        yield HeldBack("job_paused", row["pause_reason"], row["paused_at"])
    if row["opened_at"] is not None:
        yield HeldBack("store_unusable", row["error"]["message"], row["opened_at"])
