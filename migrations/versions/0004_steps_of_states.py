"""A job has a step that belongs to its state: a CHECK holds what every statement keeps."""

from __future__ import annotations

from alembic import op
from sqlalchemy.exc import IntegrityError

from worker.errors import SlicewayError

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
        try:
            op.execute(f"ALTER TABLE job VALIDATE CONSTRAINT {_NAME}")
        except IntegrityError as error:
            raise _stray() from error


def _stray() -> SlicewayError:
    """Return the error that names a job which was written by hand: no statement writes such a pair."""
    job = op.get_bind().exec_driver_sql(f"SELECT id, state, step FROM job WHERE NOT ({_STEPS}) LIMIT 1").one()  # noqa: S608
    return SlicewayError(
        f"job {job.id} is {job.state} and its step is {job.step}, which does not belong to that state",
        advice="Set the step in psql to one that docs/states.md lists for the state ('idle' of an ended job), and migrate again.",
    )


def downgrade() -> None:
    op.drop_constraint(_NAME, "job")
