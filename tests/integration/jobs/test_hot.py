"""What uploads write most often touches no index: PostgreSQL then keeps the new row version on its page (HOT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import LEASE, UNAVAILABLE
from worker.jobs import transitions
from worker.jobs.leases import Acknowledged, Deferral

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection
    from worker.jobs.leases import Claim

WRITES: dict[str, Callable[[Connection, JobsDatabase, list[Claim]], object]] = {
    "checkpoint": lambda tx, db, claims: transitions.checkpoint(tx, [Acknowledged(claims[0], "t", None)], db.worker),
    "release with an error": lambda tx, _, claims: transitions.release(tx, claims[0], Deferral(LEASE, UNAVAILABLE)),
    "checkpoint after an error": lambda tx, db, claims: (
        transitions.release(tx, claims[1], Deferral(LEASE, UNAVAILABLE)),
        transitions.checkpoint(tx, [Acknowledged(claims[0], "t", None)], db.worker),
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_of_a_job_that_uploads_touches_no_index(db: JobsDatabase, name: str) -> None:
    job = db.uploading(4)
    claims = db.take(job, 0, 1)
    with db.transaction() as tx:
        before = updates(tx)
        WRITES[name](tx, db, claims)
        made, hot = (after - was for after, was in zip(updates(tx), before, strict=True))
    assert made > 0
    assert made == hot


def updates(tx: Connection) -> tuple[Any, Any]:
    row = tx.execute("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'job'").fetchone()
    assert row is not None
    return row["n_tup_upd"], row["n_tup_hot_upd"]
