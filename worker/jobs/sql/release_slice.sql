-- A slice goes back, to be handed out again: after a retryable error, or because we ourselves cut the work short.
-- `again_s` NULL means at once. The job remembers since when it fails, and the error if it is a new one.
WITH parent AS MATERIALIZED (
  SELECT id, epoch, state, error FROM job WHERE id = %(job)s AND epoch = %(epoch)s FOR NO KEY UPDATE
), freed AS (
  UPDATE slice s SET
    state = 'pending',
    worker = NULL,
    lease_until = NULL,
    not_before = now() + make_interval(secs => %(again_s)s::float8),
    attempts = s.attempts + %(attempt)s,
    error = coalesce(%(error)s::jsonb, s.error)
  FROM parent p
  WHERE s.job_id = p.id AND s.number = %(number)s AND s.state = 'sending' AND s.token = %(token)s AND s.worker = %(worker)s
  RETURNING s.job_id
), noted AS (
  UPDATE job j SET
    failing_since = CASE WHEN %(restart_clock)s THEN now() ELSE coalesce(j.failing_since, now()) END,
    error = %(error)s::jsonb,
    updated_at = now()
  FROM freed f JOIN parent p ON p.id = f.job_id
  WHERE j.id = f.job_id AND p.state = 'uploading' AND %(error)s::jsonb IS NOT NULL
), told AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause)
  SELECT p.id, 'slice_deferred', p.epoch, %(actor)s, %(error)s::jsonb
  FROM parent p JOIN freed f ON f.job_id = p.id
  WHERE %(error)s::jsonb IS NOT NULL AND p.state = 'uploading' AND p.error->>'code' IS DISTINCT FROM %(error)s::jsonb->>'code'
)
SELECT job_id FROM freed
