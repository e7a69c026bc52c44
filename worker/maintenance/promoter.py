"""Promotion: the leader makes due what waited until now.

A waiting row has a time in `not_before`; the promotion nulls it. An abort waits for the last claim of its job instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs import due, transitions

if TYPE_CHECKING:
    from worker.db.pool import Connection


def promote(tx: Connection) -> None:
    """Make due what waited until now, whatever the snapshot says: it does not show slices that no worker can claim."""
    transitions.promote_due(tx)


def promoted_snapshot(tx: Connection, *, whole_bytes: int) -> due.QueueSnapshot:
    """Return a snapshot in which no row waits for a time that is over.

    The promotion costs a statement and a second snapshot, so it runs only when the first snapshot shows a row for it.
    """
    snapshot = due.snapshot(tx, whole_bytes=whole_bytes)
    if snapshot.abort_due or (snapshot.next_due_s is not None and snapshot.next_due_s <= 0):
        transitions.promote_due(tx)
        snapshot = due.snapshot(tx, whole_bytes=whole_bytes)
    return snapshot
