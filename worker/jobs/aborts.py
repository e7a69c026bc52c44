"""What the abort of a cancelled job goes by, beside the job's own row. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs.rows import DueItem
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker.db.pool import Connection


def due_aborts(
    tx: Connection, *, blocked: Sequence[str], known: Sequence[str], most: int, held_tenants: Sequence[str] = ()
) -> list[DueItem]:
    """Return due aborts of blocked stores that are not to wait until the store is usable again."""
    params = {"blocked": list(blocked), "known": list(known), "most": most, "held_tenants": list(held_tenants)}
    return [DueItem.from_row(row) for row in tx.execute(sql("due_aborts"), params)]


def cancelled_for_s(tx: Connection, job_id: UUID) -> float:
    """Return how many seconds ago the job's cancel was asked for."""
    row = tx.execute(sql("cancelled_for"), {"job": job_id}).fetchone()
    return 0.0 if row is None else float(row["seconds"])
