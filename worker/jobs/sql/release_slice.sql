-- A slice goes back, to be dispatched again: after a retryable error, or because we ourselves cut the work short.
-- `delay_s` NULL means at once. The job remembers since when it fails, and the error if it is a new one. Both remember how
-- many bytes were acknowledged: a job's progress, as the API reports it, never falls.
WITH parent AS MATERIALIZED (
  SELECT id, epoch, state, error FROM job WHERE id = %(job)s AND epoch = %(epoch)s FOR NO KEY UPDATE
), held AS MATERIALIZED (
  SELECT s.job_id, s.number, coalesce(s.sent_bytes, 0) AS before, least(%(sent_bytes)s, s.size_bytes) AS sent_bytes
  FROM parent p JOIN slice s ON s.job_id = p.id
  WHERE s.number = %(number)s AND s.state = 'sending' AND s.token = %(token)s AND s.worker = %(worker)s
  FOR NO KEY UPDATE OF s
), freed AS (
  UPDATE slice s SET
    state = 'pending',
    /*: released :*/,
    not_before = now() + make_interval(secs => %(delay_s)s::float8),
    attempts = s.attempts + %(attempt)s,
    error = coalesce(%(error)s::jsonb, s.error),
    sent_bytes = nullif(greatest(h.before, h.sent_bytes), 0)
  FROM held h WHERE s.job_id = h.job_id AND s.number = h.number
  RETURNING s.job_id, greatest(h.sent_bytes - h.before, 0) AS more_bytes
), noted AS (
  UPDATE job j SET
    failing_since = CASE WHEN NOT n.fails THEN j.failing_since
                         WHEN %(restart_clock)s THEN now() ELSE coalesce(j.failing_since, now()) END,
    error = CASE WHEN n.fails THEN %(error)s::jsonb ELSE j.error END,
    sent_bytes = nullif(coalesce(j.sent_bytes, 0) + n.more_bytes, 0),
    updated_at = now()
  FROM (
    SELECT p.id, f.more_bytes, p.state = 'uploading' AND %(error)s::jsonb IS NOT NULL AS fails
    FROM freed f JOIN parent p ON p.id = f.job_id
  ) AS n
  WHERE j.id = n.id AND (n.fails OR n.more_bytes > 0)
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor, cause)
  SELECT p.id, 'slice_deferred', p.epoch, %(actor)s, %(error)s::jsonb
  FROM parent p JOIN freed f ON f.job_id = p.id
  WHERE %(error)s::jsonb IS NOT NULL AND p.state = 'uploading' AND p.error->>'code' IS DISTINCT FROM %(error)s::jsonb->>'code'
)
SELECT job_id FROM freed
