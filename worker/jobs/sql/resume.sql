-- New work starts again for paused jobs. `run` grows: see retry.sql. The pause does not count as time in failure; see release_hold.sql.
WITH asked AS MATERIALIZED (
  SELECT id, state, paused_at FROM /*: jobs_of_a_command :*/
), moved AS (
  UPDATE job j SET paused_at = NULL, pause_reason = NULL, run = j.run + 1, updated_at = now(),
    failing_since = j.failing_since + greatest(interval '0',
      least(now(), (SELECT min(h.at) FROM hold h WHERE /*: hold_covers :*/)) - greatest(a.paused_at, j.failing_since))
  FROM asked a WHERE j.id = a.id AND a.state IN (/*: states_before_the_end :*/) AND a.paused_at IS NOT NULL
  RETURNING j.id, j.epoch
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause) SELECT id, 'resumed', epoch, %(actor)s, %(cause)s::jsonb FROM moved
)
SELECT a.id, a.state, m.id IS NOT NULL AS changed FROM asked a LEFT JOIN moved m USING (id)
