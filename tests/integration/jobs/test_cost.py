"""The cost of the engine's statements does not grow with the number of finished or waiting jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import AT_ONCE_LEASES, LEASE, UNAVAILABLE, abandon_job, cancel_job, retry_job
from worker.db.pool import Database
from worker.jobs import control, due, leases, transitions
from worker.jobs.held_back import held_back
from worker.jobs.leases import Acknowledged, Claim, Deferral
from worker.jobs.statements import sql, texts
from worker.jobs.states import JobState, SliceState, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection

FINISHED, WAITING, UPLOADING, SLICES = 20_000, 5_000, 20, 1_000
MAX_ROWS = 4_000
"""The rows that a statement may read: far fewer than the tables hold."""


def fill(db: JobsDatabase) -> None:
    """Insert many finished jobs, many waiting ones and a few that upload."""
    db.run(
        """INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, verify,
             retry_for_s, size_bytes, started_at, finished_at, idempotency_key)
           SELECT gen_random_uuid(), 't' || n %% 7, (ARRAY['failed', 'cancelled', 'succeeded'])[n %% 3 + 1], 'idle', 5,
             '{"root": "r", "path": "p"}', 'main', 'k', 'old/' || n, false, 'auto', 3600, 1, now(), now(), 'i' || n
           FROM generate_series(1, %s) AS n""",
        FINISHED,
    )
    db.run(
        """INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, verify,
             retry_for_s, not_before)
           SELECT gen_random_uuid(), 't' || n %% 7, 'queued', 'pending', n %% 9, '{"root":"r","path":"p"}', 'main', 'k',
             'new/' || n, false, 'auto', 3600, CASE WHEN n %% 2 = 0 THEN now() + interval '1 hour' END
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


class Targets:
    """The rows of the filled database that the statements are called on."""

    def __init__(self, db: JobsDatabase) -> None:
        self.db = db
        rows = db.run("SELECT id FROM job WHERE state = 'uploading' ORDER BY id")
        self.jobs = [row["id"] for row in rows]
        self.waiting = db.run("SELECT id FROM job WHERE state = 'queued' AND not_before IS NULL LIMIT 1")[0]["id"]
        rows = db.run("SELECT id FROM job WHERE state = 'failed' ORDER BY id LIMIT %s", UPLOADING)
        self.failed = [row["id"] for row in rows]
        self.sending = [Claim(self.jobs[0], number, 5, 1, db.worker) for number in range(200, 202)]
        self.step = Claim(self.waiting, None, 1, 1, db.worker)

    def initializing(self, tx: Connection) -> None:
        """Dispatch a step and claim it."""
        transitions.dispatch(tx, [self.waiting], [])
        transitions.claim_step(tx, self.step, JobState.QUEUED, LEASE)

    def line(self) -> dict[str, Any]:
        """Parameters of `why_line.sql`, for the last job that is due."""
        [row] = self.db.run(
            "SELECT id AS job, store, tenant, priority FROM job WHERE state = 'queued' AND not_before IS NULL"
            " ORDER BY priority DESC, id DESC LIMIT 1"
        )
        return row | {"states": ["queued"], "slices_first": True, "most": 10_000}

    def abandoned(self, tx: Connection) -> None:
        """Abandon a job, and end what was abandoned."""
        abandon_job(tx, self.jobs[3])
        transitions.end_abandoned(tx, AT_ONCE_LEASES)

    def batch(self) -> list[Acknowledged]:
        return [Acknowledged(claim, "t", None) for claim in self.sending]


STATEMENTS: dict[str, Callable[[Connection, Targets], object]] = {
    "snapshot": lambda tx, _: due.snapshot(tx, whole_bytes=0),
    "due steps": lambda tx, _: due.due_steps(tx, per_lane=64, blocked=["other"], whole_bytes=0),
    "due slices": lambda tx, _: due.due_slices(tx, per_lane=64, window=8, blocked=[]),
    "promote": lambda tx, _: transitions.promote_due(tx),
    "rescue": lambda tx, _: transitions.rescue(tx),
    "redispatch": lambda tx, _: transitions.redispatch(tx),
    "dispatch": lambda tx, t: transitions.dispatch(tx, [t.waiting], [(job, 240) for job in t.jobs]),
    "claim init": lambda tx, t: t.initializing(tx),
    "claim slice": lambda tx, t: transitions.claim_slice(
        tx, Claim(t.jobs[1], 202, 5, 1, t.db.worker), low_speed=1, slack=LEASE
    ),
    "checkpoint": lambda tx, t: transitions.checkpoint(tx, t.batch(), t.db.worker),
    "release": lambda tx, t: transitions.release(tx, t.sending[0], Deferral(LEASE, UNAVAILABLE)),
    "lost claims": lambda tx, t: leases.lost_claims(tx, [(claim, False) for claim in t.sending], t.db.worker),
    "fail": lambda tx, t: transitions.fail(tx, t.sending[0], UNAVAILABLE),
    "new epoch": lambda tx, t: transitions.new_epoch(tx, t.sending[0], UNAVAILABLE, None),
    "cancel": lambda tx, t: cancel_job(tx, t.jobs[2]),
    "pause": lambda tx, t: control.pause(tx, [t.jobs[2]], "o", "why"),
    "cancel a set": lambda tx, t: control.cancel(tx, t.jobs, "o"),
    "pause a set": lambda tx, t: control.pause(tx, t.jobs, "o", "why"),
    "abandon a set": lambda tx, t: control.cancel(tx, t.jobs, "o", abandon=True),
    "end of the abandoned": lambda tx, t: t.abandoned(tx),
    "priority of a set": lambda tx, t: control.prioritise(tx, t.jobs, "o", 1),
    "start a set": lambda tx, t: control.start_now(tx, t.jobs, "o"),
    "release of a hold": lambda tx, _: tx.execute(sql("release_hold"), {"kind": "queue", "name": ""}),
    "what holds back": lambda tx, t: held_back(tx, t.jobs[0]),
    "resume": lambda tx, t: control.resume(tx, t.jobs[2:3], "o"),
    "retry": lambda tx, t: retry_job(tx, t.failed[0]),
    "retry a set": lambda tx, t: control.retry(tx, t.failed, "o"),
    "why: a job": lambda tx, t: tx.execute(
        sql("why_job"), {"job": t.jobs[0], "whole_bytes": 0, "known": []}
    ).fetchall(),
    "why: the engine": lambda tx, _: tx.execute(sql("why_engine"), {"dead_after_s": 10.0}).fetchall(),
    "why: the line": lambda tx, t: tx.execute(sql("why_line"), t.line()).fetchall(),
    "enqueue": lambda tx, t: transitions.enqueue(tx, [t.db.new(idempotency_key="new"), t.db.new()], "o"),
}


def reads(tx: Connection) -> tuple[int, int]:
    """Return how many full scans this transaction has made of jobs and slices, and how many rows it has read."""
    row = tx.execute(
        """SELECT sum(seq_scan)::int AS scans, sum(seq_tup_read + idx_tup_fetch)::int AS rows
           FROM pg_stat_xact_user_tables WHERE relname IN ('job', 'slice')"""
    ).fetchone()
    assert row is not None
    return row["scans"], row["rows"]


@pytest.mark.parametrize("plan_once", [False, True], ids=["planned each time", "planned once"])
def test_no_statement_of_the_engine_reads_a_whole_table(filled_db: JobsDatabase, *, plan_once: bool) -> None:
    targets = Targets(filled_db)
    pool = Database(filled_db.url, plan_once=plan_once, keep=texts())
    try:
        with pool.connection() as tx:
            cost = {name: cost_of(tx, statement, targets) for name, statement in STATEMENTS.items()}
    finally:
        pool.close()
    assert {name: scans for name, (scans, _) in cost.items() if scans} == {}
    assert {name: rows for name, (_, rows) in cost.items() if rows > MAX_ROWS} == {}


def cost_of(tx: Connection, statement: Callable[[Connection, Targets], object], targets: Targets) -> tuple[int, int]:
    with tx.transaction(force_rollback=True):
        before = reads(tx)
        statement(tx, targets)
        after = reads(tx)
    return after[0] - before[0], after[1] - before[1]
