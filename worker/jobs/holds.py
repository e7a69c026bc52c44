"""Holds: nothing new is dispatched to a store, of a tenant, or at all, until the hold is released.

What is in flight ends. A hold is a row, so that it holds while no worker runs. Its time is no time in failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs import audit
from worker.jobs.hold_rows import Hold, HoldKind
from worker.jobs.statements import sql
from worker.jobs.transitions import wake

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.db.pool import Connection
    from worker.jobs.commands import Acting


def pause(tx: Connection, kind: HoldKind, name: str, acting: Acting) -> bool:
    """Hold a store, a tenant or the queue, in a transaction; return whether it was not held before."""
    by = acting.by
    params = {"kind": kind, "name": name, "reason": by.reason, "actor": by.name, "person": by.person}
    changed = tx.execute(sql("hold"), params | {"key_name": acting.key.name}).fetchone() is not None
    audit.record(tx, by, f"{kind}.pause", _what(kind, name), changed=int(changed))
    return changed


def resume(tx: Connection, kind: HoldKind, name: str, acting: Acting) -> bool:
    """Release what was held, in a transaction; return whether it was."""
    changed = tx.execute(sql("release_hold"), {"kind": kind, "name": name}).fetchone() is not None
    audit.record(tx, acting.by, f"{kind}.resume", _what(kind, name), changed=int(changed))
    if changed:
        wake(tx)
    return changed


def _what(kind: HoldKind, name: str) -> Mapping[str, str]:
    return {} if kind is HoldKind.QUEUE else {str(kind): name}


def list_holds(tx: Connection) -> Sequence[Hold]:
    """Return all holds, that of the queue first."""
    rows = tx.execute("SELECT kind, name, reason, actor, key_name, person, at FROM hold ORDER BY kind, name")
    return [Hold(**row | {"kind": HoldKind(row["kind"])}) for row in rows]


def is_tenant(tx: Connection, name: str) -> bool:
    """Say whether a tenant has a key or a job."""
    row = tx.execute(
        "SELECT EXISTS (SELECT FROM api_key WHERE tenant = %(name)s)"
        " OR EXISTS (SELECT FROM job WHERE tenant = %(name)s) AS found",
        {"name": name},
    ).fetchone()
    return row is not None and bool(row["found"])
