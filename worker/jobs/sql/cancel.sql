-- Cancel: from its commit on no slice is claimed. Where nothing was ever begun at the store a job ends at once; else the abort step
-- cleans up after the last claim has ended. Nothing was begun where each init that was claimed has ended, and by an error that
-- shows it: the root or the profile was missing, or the store refused us. All other ends of an init leave it open. So does a
-- row that was written while this statement waited for it: the events of that writing are not to be seen here.
-- `abandon`: the leader ends the job without its store (end_abandoned.sql), also one that was cancelled before.
WITH asked AS MATERIALIZED (
  SELECT id, epoch, state, step, abandoned_at,
    started_at IS NULL OR state = 'queued' AND session IS NULL AND (
      SELECT count(*) FILTER (WHERE kind = 'init_claimed') = count(*) FILTER (
        WHERE kind = 'init_deferred' AND cause ->> 'code' IN (
          'root_unavailable', 'store_changed', 'store_unusable', 'proxy_unusable', 'tls_unusable', 'tenant_not_allowed'))
      FROM event WHERE job_id = job.id
    ) AND EXISTS (SELECT FROM job seen WHERE seen.id = job.id AND seen.updated_at = job.updated_at AND seen.token = job.token
    ) AS untouched
  FROM /*: jobs_of_a_command :*/
), parent AS MATERIALIZED (
  SELECT * FROM asked
  WHERE state IN (/*: states_before_the_end :*/) OR %(abandon)s AND state = 'cancelling' AND abandoned_at IS NULL
), freed AS (
  UPDATE slice s SET state = 'pending' FROM parent p WHERE s.job_id = p.id AND s.state = 'dispatched'
), moved AS (
  UPDATE job j SET
    state = CASE WHEN p.untouched THEN 'cancelled' ELSE 'cancelling' END,
    step = CASE WHEN p.step = 'running' THEN 'running' ELSE 'idle' END,
    not_before = NULL, failing_since = NULL, paused_at = NULL, pause_reason = NULL, attempts = 0,
    error = CASE WHEN NOT p.untouched THEN j.error END,
    finished_at = CASE WHEN p.untouched THEN now() END, updated_at = now(),
    abandoned_at = CASE WHEN %(abandon)s AND NOT p.untouched THEN now() END
  FROM parent p WHERE j.id = p.id
  RETURNING j.id, j.epoch, p.state AS before, j.state
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'cancel_requested', before, 'cancelling', epoch, %(actor)s, %(cause)s::jsonb FROM moved WHERE before <> 'cancelling'
  UNION ALL
  SELECT id, 'abandon_requested', NULL, NULL, epoch, %(actor)s, %(cause)s::jsonb FROM moved WHERE %(abandon)s AND state = 'cancelling'
  UNION ALL
  SELECT id, 'cancelled', 'cancelling', 'cancelled', epoch, %(actor)s, NULL FROM moved WHERE state = 'cancelled'
)
SELECT a.id, coalesce(m.state, a.state) AS state, m.id IS NOT NULL AS changed FROM asked a LEFT JOIN moved m USING (id)
