-- Init and new slices do not start; what is in flight ends; the target stays reserved. `run` grows: see retry.sql.
-- A cancelled job is not held back: its abort, if its message is the one that was revoked, goes out under another id.
WITH asked AS MATERIALIZED (
  SELECT id, state, step, paused_at FROM /*: jobs_of_a_command :*/
), moved AS (
  UPDATE job j SET paused_at = now(), pause_reason = %(reason)s, run = j.run + 1,
    step = CASE j.step WHEN 'dispatched' THEN 'pending' ELSE j.step END, updated_at = now()
  FROM asked a WHERE j.id = a.id AND a.state IN (/*: states_before_the_end :*/) AND a.paused_at IS NULL
  RETURNING j.id, j.epoch
), freed AS (
  UPDATE slice s SET state = 'pending' FROM moved m WHERE s.job_id = m.id AND s.state = 'dispatched'
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause)
  SELECT id, 'paused', epoch, %(actor)s, %(cause)s::jsonb FROM moved
), renewed AS (
  UPDATE job j SET run = j.run + 1, state = a.state, step = 'pending', finished_at = NULL, updated_at = now()
  FROM asked a WHERE j.id = a.id AND a.state = 'cancelling' AND a.step = 'dispatched'
)
SELECT a.id, a.state, m.id IS NOT NULL AS changed FROM asked a LEFT JOIN moved m USING (id)
