-- Another priority, for what is dispatched from now on. A job that has succeeded keeps the one that it had. Of a cancelled job
-- `updated_at` stays: due_aborts.sql counts from it.
WITH asked AS MATERIALIZED (
  SELECT id, state, priority FROM /*: jobs_of_a_command :*/
), moved AS (
  UPDATE job j SET priority = %(priority)s, updated_at = CASE a.state WHEN 'cancelling' THEN j.updated_at ELSE now() END
  FROM asked a WHERE j.id = a.id AND a.state <> 'succeeded' AND a.priority <> %(priority)s
  RETURNING j.id, j.epoch, a.priority AS before
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause)
  SELECT id, 'priority_changed', epoch, %(actor)s,
    jsonb_build_object('from', before, 'to', %(priority)s::int) || coalesce(%(cause)s::jsonb, '{}')
  FROM moved
)
SELECT a.id, a.state, m.id IS NOT NULL AS changed FROM asked a LEFT JOIN moved m USING (id)
