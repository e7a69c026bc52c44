"""Which dispatcher leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs.statements import sql

if TYPE_CHECKING:
    from uuid import UUID

    from worker.db.pool import Connection


def lead(tx: Connection, holder: UUID, lead_s: float) -> int | None:
    """Lead the dispatch, or go on leading; returns the term, or None while another leads."""
    row = tx.execute(sql("lead"), {"holder": holder, "lead_s": lead_s}).fetchone()
    return None if row is None else int(row["term"])


def resign(tx: Connection, holder: UUID) -> None:
    """Stop leading at once."""
    tx.execute("UPDATE leadership SET until = now() WHERE name = 'dispatcher' AND holder = %s", [holder])
