"""Caps that operators set: how many steps and slices a store or a tenant has in flight at once.

The dispatcher reads them with each tick. A cap that is lowered takes back nothing that is in flight. A cap is a row, so
that it holds while no worker runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs import audit
from worker.jobs.cap_rows import CapKind, SetCap
from worker.jobs.statements import sql
from worker.jobs.transitions import wake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.db.pool import Connection
    from worker.jobs.commands import Acting


def set_cap(tx: Connection, kind: CapKind, name: str, max_in_flight: int | None, acting: Acting) -> bool:
    """Set the cap of a store or tenant, or remove it (None), in a transaction; return whether that changed it."""
    by = acting.by
    params = {"kind": kind, "name": name, "most": max_in_flight, "reason": by.reason, "actor": by.name}
    statement = sql("remove_cap" if max_in_flight is None else "set_cap")
    changed = tx.execute(statement, params | {"person": by.person, "key_name": acting.key.name}).fetchone() is not None
    what = {str(kind): name, "max_in_flight": max_in_flight}
    audit.record(tx, by, f"{kind}.limit", what, changed=int(changed))
    if changed:
        wake(tx)
    return changed


def list_caps(tx: Connection) -> Sequence[SetCap]:
    """Return all caps, those of stores first."""
    rows = tx.execute("SELECT kind, name, max_in_flight, reason, actor, key_name, person, at FROM cap ORDER BY 1, 2")
    return [SetCap(**row | {"kind": CapKind(row["kind"])}) for row in rows]
