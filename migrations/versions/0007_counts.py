"""Counts and lists of ended jobs: the code of a failure as a column, and indexes that hold ended jobs only."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BATCH = 2000
_INDEXES = {
    "ix_job_ended": "(tenant, state, store, failure_code) WHERE finished_at IS NOT NULL",
    "ix_job_ended_key": "(key text_pattern_ops) WHERE finished_at IS NOT NULL",
    "ix_job_failed_id": "(id, failure_code, state, tenant, store) WHERE state IN ('failed', 'cancelled')",
}
# Rows that a worker of 0.1 writes meanwhile, or later, have no code; `worker/jobs/matching.py` reads those from `error`.
_RECORD = f"""
WITH failed AS (
  SELECT id FROM job
  WHERE finished_at IS NOT NULL AND state IN ('failed', 'cancelled') AND failure_code IS NULL
    AND error ->> 'code' IS NOT NULL
  LIMIT {_BATCH} FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE job SET failure_code = job.error ->> 'code' FROM failed WHERE job.id = failed.id"""  # noqa: S608


def upgrade() -> None:
    op.execute("ALTER TABLE job ADD COLUMN IF NOT EXISTS failure_code text")
    # Not in one transaction: the indexes are built, and the rows written in batches, while work goes on. A run that was
    # cut short is made again from the first; an index that it has left invalid is dropped.
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON job {definition}")
        while op.get_bind().exec_driver_sql(_RECORD).rowcount:
            pass


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in _INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.drop_column("job", "failure_code")
