-- The step and the slices of live jobs do not wait for their time any more. A pause and an open breaker hold as before. Of a
-- cancelled job `updated_at` stays: due_aborts.sql counts from it.
WITH asked AS MATERIALIZED (
  SELECT id, state, not_before FROM /*: jobs_of_a_command :*/
), waiting AS MATERIALIZED (
  SELECT s.job_id, s.number FROM asked a CROSS JOIN LATERAL (
    SELECT job_id, number FROM slice WHERE job_id = a.id AND state = 'pending' AND not_before IS NOT NULL
    ORDER BY number FOR NO KEY UPDATE) AS s
  WHERE a.state NOT IN (/*: final_states :*/)
), freed AS (
  UPDATE slice s SET not_before = NULL FROM waiting w WHERE s.job_id = w.job_id AND s.number = w.number RETURNING s.job_id
), moved AS (
  UPDATE job j SET not_before = NULL, updated_at = CASE a.state WHEN 'cancelling' THEN j.updated_at ELSE now() END
  FROM asked a
  WHERE j.id = a.id AND a.state NOT IN (/*: final_states :*/)
    AND (a.not_before IS NOT NULL OR EXISTS (SELECT FROM freed f WHERE f.job_id = a.id))
  RETURNING j.id, j.epoch
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause) SELECT id, 'start_requested', epoch, %(actor)s, %(cause)s::jsonb FROM moved
)
SELECT a.id, a.state, m.id IS NOT NULL AS changed FROM asked a LEFT JOIN moved m USING (id)
