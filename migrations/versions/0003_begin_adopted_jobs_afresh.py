"""Live jobs that went on with an upload of which nothing but the size was known begin afresh."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# 0.1 wrote what it found in the list as `held`, and did not ask whether the list named the file's digest.
_ADOPTED = """
  SELECT id FROM job
  WHERE finished_at IS NULL AND session IS NOT NULL AND EXISTS (
    SELECT FROM event e
    WHERE e.job_id = job.id AND e.epoch = job.epoch AND e.kind IN ('session_opened', 'all_slices_held')
      AND (e.cause ->> 'held')::int > 0 AND NOT e.cause ? 'held_by')
  ORDER BY id
"""

# Locks as everywhere: the jobs' rows by id first, then their slices. Workers of 0.1 may be running: whatever they hold of
# these jobs they hold under the old epoch, and lose. The next step waits until the last of those claims has ended, so
# that no request of theirs is still on its way.
# `session_losses` grows so that a worker of 0.1 that gets the new init does not adopt the same upload again.
# A job in `cancelling` stays there, without the session: its abort must not delete what may be another client's upload, and
# a finish of 0.1 that is on its way must not end it as succeeded.
_BEGIN_AFRESH = """
WITH adopted AS MATERIALIZED (
  SELECT id, state, greatest(lease_until, (
    SELECT max(s.lease_until) FROM slice s WHERE s.job_id = job.id AND s.state = 'sending')) AS claimed_until
  FROM job WHERE id = ANY(%(ids)s)
), cleared AS (
  DELETE FROM slice s USING adopted a WHERE s.job_id = a.id
), moved AS (
  UPDATE job j SET
    state = CASE a.state WHEN 'cancelling' THEN a.state ELSE 'queued' END,
    step = 'pending', worker = NULL, lease_until = NULL,
    not_before = CASE WHEN a.claimed_until > now() THEN a.claimed_until END,
    epoch = j.epoch + 1, session = NULL, session_losses = j.session_losses + 1, finish_claims = 0, existed = NULL,
    slices_total = NULL, slices_left = NULL, bytes_done = 0, error = %(error)s::jsonb, updated_at = now()
  FROM adopted a WHERE j.id = a.id
  RETURNING j.id, j.epoch, a.state AS before
)
INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
SELECT id, CASE before WHEN 'cancelling' THEN 'session_left_open' ELSE 'session_lost' END,
       CASE WHEN before NOT IN ('queued', 'cancelling') THEN before END,
       CASE WHEN before NOT IN ('queued', 'cancelling') THEN 'queued' END,
       epoch, 'migration 0003', %(error)s::jsonb
FROM moved
"""

_ERROR = """{
  "code": "session_lost",
  "message": "the job had gone on with an upload of which nothing but the size was known: it begins afresh",
  "advice": "Nothing is to be done: the job sends the whole file."
}"""


def upgrade() -> None:
    connection = op.get_bind()
    # locked by one statement and changed by the next, which sees what was committed before the locks were there
    ids = [row[0] for row in connection.exec_driver_sql(_ADOPTED + " FOR NO KEY UPDATE")]
    connection.exec_driver_sql(_BEGIN_AFRESH, {"ids": ids, "error": _ERROR})


def downgrade() -> None:
    """Leave the rows as they are: 0002 reads them."""
