"""The rows of worker processes: registered, heard of, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs.leases import json_or_null
from worker.jobs.rows import EndedWorker
from worker.jobs.statements import sql
from worker.jobs.stores_reload import ReloadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.documents import LinkCounters, SendingEntry
    from worker.jobs.stores_reload import ProfilesDocument


def start_worker(tx: Connection, worker: UUID, name: str, *, slots: int, roots: Sequence[str]) -> None:
    """Register a worker process under its random identity."""
    tx.execute(sql("start_worker"), {"id": worker, "name": name, "slots": slots, "roots": list(roots)})


def heartbeat(
    tx: Connection,
    worker: UUID,
    *,
    slots: int,
    roots: Sequence[str],
    claimed_through: datetime | None,
    links: list[LinkCounters] | None = None,
    sending: list[SendingEntry] | None = None,
    profiles: ProfilesDocument | None = None,
) -> ReloadRequest | None:
    """Say that the worker lives; None if it was taken for dead meanwhile and holds nothing any more.

    ``profiles``: what it says of its stores file.

    ``links``: the counters of its links, where they have changed. ``sending``: what is being sent, as
    `worker.runtime.sending_report` makes it; None for nothing.
    """
    params = {
        "id": worker,
        "slots": slots,
        "roots": list(roots),
        "claimed_through": claimed_through,
        "links": json_or_null(links),
        "sending": json_or_null(sending),
        "profiles": json_or_null(profiles),
    }
    row = tx.execute(sql("heartbeat"), params).fetchone()
    return None if row is None else ReloadRequest(row["generation"] or 0, row["key"])


def stop_worker(tx: Connection, worker: UUID) -> None:
    """Say that the worker has stopped of its own will: what it still held counts as no death."""
    tx.execute(sql("stop_worker"), {"id": worker})


def end_dead_workers(tx: Connection, dead_after_s: float) -> list[EndedWorker]:
    """End the workers that were silent for too long, and return them."""
    return [EndedWorker(**row) for row in tx.execute(sql("end_workers"), {"dead_after_s": dead_after_s})]
