"""What the engine asks all day costs the same with many finished jobs behind it and many waiting ones before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import LEASE, UNAVAILABLE
from worker.db.pool import Database
from worker.jobs import due, leases, transitions
from worker.jobs.leases import Acknowledged, Claim, Deferral
from worker.jobs.statements import texts
from worker.jobs.states import JobState, SliceState, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Tx

FINISHED, WAITING, UPLOADING, SLICES = 20_000, 5_000, 20, 1_000
ROWS_MOST = 4_000
"""A statement may read what is live and near: far less than what is there."""


def fill(db: JobsDatabase) -> None:
    """Much that has ended, much that waits, and a few jobs that upload."""
    db.run(
        """INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, verify,
             retry_for_s, size_bytes, started_at, finished_at, idempotency_key)
           SELECT gen_random_uuid(), 't' || n %% 7, (ARRAY['failed', 'cancelled', 'succeeded'])[n %% 3 + 1], 'idle', 5,
             '{}', 'main', 'k', 'old/' || n, false, 'auto', 3600, 1, now(), now(), 'i' || n
           FROM generate_series(1, %s) AS n""",
        FINISHED,
    )
    db.run(
        """INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, verify,
             retry_for_s, not_before)
           SELECT gen_random_uuid(), 't' || n %% 7, 'queued', 'pending', n %% 9, '{}', 'main', 'k', 'new/' || n, false,
             'auto', 3600, CASE WHEN n %% 2 = 0 THEN now() + interval '1 hour' END
           FROM generate_series(1, %s) AS n""",
        WAITING,
    )
    jobs = [db.enqueue() for _ in range(UPLOADING)]
    slices = [SliceState.DONE] * 200 + [SliceState.SENDING] * 2 + [SliceState.DISPATCHED] * 2
    slices += [SliceState.PENDING] * (SLICES - len(slices))
    db.force_all([(job, JobState.UPLOADING, Step.IDLE) for job in jobs], slices)
    db.run("ANALYZE")


@pytest.fixture(scope="module")
def filled_db(shared_db: JobsDatabase) -> Any:
    fill(shared_db)
    return shared_db


class Acts:
    """The engine's statements, each on rows of the full db."""

    def __init__(self, db: JobsDatabase) -> None:
        self.db = db
        rows = db.run("SELECT id FROM job WHERE state = 'uploading' ORDER BY id")
        self.jobs = [row["id"] for row in rows]
        self.waiting = db.run("SELECT id FROM job WHERE state = 'queued' AND not_before IS NULL LIMIT 1")[0]["id"]
        self.sending = [Claim(self.jobs[0], number, 5, 1, db.worker) for number in range(200, 202)]
        self.step = Claim(self.waiting, None, 1, 1, db.worker)

    def initializing(self, tx: Tx) -> None:
        """Hand out a step and take it."""
        transitions.dispatch(tx, [self.waiting], [])
        transitions.claim_step(tx, self.step, JobState.QUEUED, LEASE)

    def batch(self) -> list[Acknowledged]:
        return [Acknowledged(claim, "t", None) for claim in self.sending]


ACTS: dict[str, Callable[[Tx, Acts], object]] = {
    "snapshot": lambda tx, _: due.snapshot(tx, whole_bytes=0),
    "due steps": lambda tx, _: due.due_steps(tx, per_lane=64, blocked=["other"], whole_bytes=0),
    "due slices": lambda tx, _: due.due_slices(tx, per_lane=64, window=8, blocked=[]),
    "promote": lambda tx, _: transitions.promote_due(tx),
    "rescue": lambda tx, _: transitions.rescue(tx),
    "redispatch": lambda tx, _: transitions.redispatch(tx),
    "dispatch": lambda tx, a: transitions.dispatch(tx, [a.waiting], [(job, 240) for job in a.jobs]),
    "claim init": lambda tx, a: a.initializing(tx),
    "claim slice": lambda tx, a: transitions.claim_slice(
        tx, Claim(a.jobs[1], 202, 5, 1, a.db.worker), low_speed=1, slack=LEASE
    ),
    "checkpoint": lambda tx, a: transitions.checkpoint(tx, a.batch(), a.db.worker),
    "release": lambda tx, a: transitions.release(tx, a.sending[0], Deferral(LEASE, UNAVAILABLE)),
    "lost claims": lambda tx, a: leases.lost_claims(tx, [(claim, False) for claim in a.sending], a.db.worker),
    "fail": lambda tx, a: transitions.fail(tx, a.sending[0], UNAVAILABLE),
    "new epoch": lambda tx, a: transitions.new_epoch(tx, a.sending[0], UNAVAILABLE, None),
    "cancel": lambda tx, a: transitions.cancel(tx, a.jobs[2], "o"),
    "pause": lambda tx, a: transitions.pause(tx, a.jobs[2], "o", "why"),
    "retry": lambda tx, a: transitions.retry(tx, a.jobs[2], "o"),
    "enqueue": lambda tx, a: transitions.enqueue(tx, [a.db.new(idempotency_key="new"), a.db.new()], "o"),
}


def reads(tx: Tx) -> tuple[int, int]:
    """Return what this transaction has read so far of jobs and slices: whole scans of a table, and rows."""
    row = tx.execute(
        """SELECT sum(seq_scan)::int AS scans, sum(seq_tup_read + idx_tup_fetch)::int AS rows
           FROM pg_stat_xact_user_tables WHERE relname IN ('job', 'slice')"""
    ).fetchone()
    assert row is not None
    return row["scans"], row["rows"]


@pytest.mark.parametrize("plan_once", [False, True], ids=["planned each time", "planned once"])
def test_no_statement_of_the_engine_reads_a_whole_table(filled_db: JobsDatabase, *, plan_once: bool) -> None:
    acts = Acts(filled_db)
    db = Database(filled_db.url, plan_once=plan_once, keep=texts())
    try:
        with db.connection() as tx:
            cost = {name: cost_of(tx, act, acts) for name, act in ACTS.items()}
    finally:
        db.close()
    assert {name: scans for name, (scans, _) in cost.items() if scans} == {}
    assert {name: rows for name, (_, rows) in cost.items() if rows > ROWS_MOST} == {}


def cost_of(tx: Tx, act: Callable[[Tx, Acts], object], acts: Acts) -> tuple[int, int]:
    with tx.transaction(force_rollback=True):
        before = reads(tx)
        act(tx, acts)
        after = reads(tx)
    return after[0] - before[0], after[1] - before[1]
