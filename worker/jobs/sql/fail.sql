-- The job fails for good, by the word of who holds its step (`number` NULL), holds a slice, or of the dispatcher (`worker` NULL:
-- quarantine). What was dispatched is taken back; what is being sent may still checkpoint, for a later retry. Whoever holds
-- the step loses it; a slice that fails in a job that has failed already, or was cancelled, is only given back. A cancelled job
-- does not fail: its abort goes on, once a minute, until it is done or has been failing for too long.
WITH parent AS MATERIALIZED (
  SELECT id, epoch, state, step, token, worker, failing_since FROM job WHERE id = %(job)s AND epoch = %(epoch)s FOR NO KEY UPDATE
), held AS MATERIALIZED (
  SELECT s.number, greatest(s.sent_bytes, least(%(sent_bytes)s, s.size_bytes), 0) AS sent_bytes,
         greatest(least(%(sent_bytes)s, s.size_bytes) - coalesce(s.sent_bytes, 0), 0) AS more_bytes
  FROM parent p JOIN slice s ON s.job_id = p.id
  WHERE s.number = %(number)s AND s.token = %(token)s AND s.worker = %(worker)s AND s.state = 'sending'
  FOR NO KEY UPDATE OF s
), allowed AS (
  SELECT p.id, p.state, p.failing_since,
    %(error)s::jsonb || jsonb_build_object('at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')) AS error
  FROM parent p
  WHERE p.state NOT IN (/*: final_states :*/)
    AND CASE WHEN %(worker)s::uuid IS NULL THEN true
             WHEN %(number)s::int IS NULL THEN p.step = 'running' AND p.token = %(token)s AND p.worker = %(worker)s
                  AND p.state IN (/*: states_with_a_step :*/)
             ELSE EXISTS (SELECT FROM held) END
), freed AS (
  UPDATE slice s SET state = 'pending', /*: released :*/,
    error = CASE WHEN s.state = 'sending' THEN %(error)s::jsonb ELSE s.error END,
    attempts = s.attempts + CASE WHEN s.state = 'sending' THEN 1 ELSE 0 END,
    sent_bytes = CASE WHEN s.state = 'sending' THEN (SELECT nullif(sent_bytes, 0) FROM held) ELSE s.sent_bytes END
  FROM parent p
  WHERE s.job_id = p.id AND (s.number IN (SELECT number FROM held) OR s.state = 'dispatched' AND EXISTS (SELECT FROM allowed))
), moved AS (
  UPDATE job j SET state = 'failed', step = 'idle', /*: released :*/, not_before = NULL, error = a.error,
    failure_code = a.error ->> 'code', finished_at = now(),
    sent_bytes = CASE WHEN %(number)s::int IS NULL THEN greatest(j.sent_bytes, nullif(%(sent_bytes)s, 0))
                      ELSE coalesce(j.sent_bytes, 0) + (SELECT more_bytes FROM held) END,
    updated_at = now()
  FROM allowed a WHERE j.id = a.id AND a.state <> 'cancelling'
  RETURNING j.id, j.epoch, a.state AS before
), let_go AS (
  UPDATE job j SET /*: lets_go :*/, error = a.error, failing_since = coalesce(j.failing_since, now()),  -- its task counts from here
    not_before = CASE WHEN a.failing_since IS NOT NULL THEN now() + make_interval(secs => %(abort_delay_s)s) END,
    sent_bytes = greatest(j.sent_bytes, nullif(%(sent_bytes)s, 0)), updated_at = now()
  FROM allowed a WHERE j.id = a.id AND a.state = 'cancelling' AND %(number)s::int IS NULL
), noted AS (
  UPDATE job j SET sent_bytes = coalesce(j.sent_bytes, 0) + h.more_bytes
  FROM parent p, held h
  WHERE j.id = p.id AND h.more_bytes > 0 AND NOT EXISTS (SELECT FROM allowed a WHERE a.state <> 'cancelling')
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'failed', before, 'failed', epoch, %(actor)s, %(error)s::jsonb FROM moved
)
SELECT CASE WHEN a.state <> 'cancelling' THEN 'failed' ELSE p.state END AS state FROM parent p LEFT JOIN allowed a USING (id)
WHERE a.id IS NOT NULL OR EXISTS (SELECT FROM held)
