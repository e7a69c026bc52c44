-- Init and new slices do not start; what is in flight ends; the target stays reserved. `run` grows: see retry.sql.
-- A cancelled job is not held back: its abort, if its message is the one that was revoked, goes out under another id.
WITH moved AS (
  UPDATE job SET paused_at = now(), pause_reason = %(reason)s, run = run + 1,
    step = CASE step WHEN 'dispatched' THEN 'pending' ELSE step END, updated_at = now()
  WHERE id = %(job)s AND state IN (/*: states_before_the_end :*/) AND paused_at IS NULL
  RETURNING id, epoch
), freed AS (
  UPDATE slice s SET state = 'pending' FROM moved m WHERE s.job_id = m.id AND s.state = 'dispatched'
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause)
  SELECT id, 'paused', epoch, %(actor)s, jsonb_build_object('reason', %(reason)s::text) FROM moved
), renewed AS (
  UPDATE job SET run = run + 1, step = 'pending', updated_at = now()
  WHERE id = %(job)s AND state = 'cancelling' AND step = 'dispatched'
)
SELECT id FROM moved
