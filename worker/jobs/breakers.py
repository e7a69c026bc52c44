"""Stores that are unusable for now, and when each is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from worker.jobs.retry import PROFILE_CODES
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from worker.db.pool import Connection
    from worker.jobs.retry import ErrorDocument


def open_breaker(tx: Connection, store: str, error: ErrorDocument, probe_s: float) -> bool:
    """Let the store's jobs wait, but for a probe every ``probe_s`` seconds; return whether the breaker was closed."""
    row = tx.execute(sql("open_breaker"), {"store": store, "error": Jsonb(error), "probe_s": probe_s}).fetchone()
    return row is not None and bool(row["opened"])


def close_breaker(tx: Connection, store: str) -> bool:
    """Let the store's jobs go on; return whether the breaker was open."""
    return tx.execute(sql("close_breaker"), {"store": store}).fetchone() is not None


def probe_at_once(tx: Connection, stores: Collection[str]) -> list[str]:
    """Let what waits for the profiles of these stores go on: jobs, and each open breaker's next probe.

    Returns:
        The stores whose breaker is open.
    """
    params = {"stores": sorted(stores), "codes": sorted(PROFILE_CODES)}
    return [row["store"] for row in tx.execute(sql("probe_at_once"), params)]


def note_probes(tx: Connection, stores: Sequence[str], probe_s: float) -> None:
    """Remember that a probe goes out to these stores now; the next one in ``probe_s`` seconds."""
    tx.execute(sql("probe"), {"stores": list(stores), "probe_s": probe_s})
