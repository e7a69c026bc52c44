"""A job has a step that belongs to its state: a CHECK holds what every statement keeps."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NAME = "ck_job_step_of_state"
_STEPS = """
CASE state
  WHEN 'uploading' THEN step IN ('idle')
  WHEN 'queued' THEN step IN ('pending', 'dispatched')
  WHEN 'initializing' THEN step IN ('running')
  WHEN 'finishing' THEN step IN ('pending', 'dispatched', 'running')
  WHEN 'cancelling' THEN step IN ('idle', 'pending', 'dispatched', 'running')
  WHEN 'succeeded' THEN step IN ('idle')
  WHEN 'failed' THEN step IN ('idle')
  WHEN 'cancelled' THEN step IN ('idle')
END"""


def upgrade() -> None:
    # Two transactions: adding it locks the table for a moment, and validating reads all rows while work goes on.
    # A run that was cut short between the two is made again from the first.
    with op.get_context().autocommit_block():
        op.execute(
            f"ALTER TABLE job DROP CONSTRAINT IF EXISTS {_NAME}, ADD CONSTRAINT {_NAME} CHECK ({_STEPS}) NOT VALID"
        )
        op.execute(f"ALTER TABLE job VALIDATE CONSTRAINT {_NAME}")


def downgrade() -> None:
    op.drop_constraint(_NAME, "job")
