-- A task takes the slice it was sent for. The job's row is locked first: no claim can follow a committed cancel or pause.
-- May commit asynchronously: a claim lost with the database only sends the slice again.
WITH parent AS MATERIALIZED (
  SELECT id, epoch, run, source, fingerprint, store, key, target, session, size_bytes, slices_total, failing_since, error,
         retry_for_s, session_losses, attributes
  FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE epoch = %(epoch)s AND state = 'uploading' AND paused_at IS NULL
)
UPDATE slice s SET
  state = 'sending',
  worker = %(worker)s,
  lease_until = now() + make_interval(secs => %(slack_s)s + s.size_bytes / %(low_speed)s::float8),
  claimed_at = now(),
  sends = s.sends + 1
FROM parent p
WHERE s.job_id = p.id AND s.number = %(number)s AND s.token = %(token)s
  AND (s.state = 'dispatched' OR %(again)s AND s.state = 'sending' AND s.worker = %(worker)s)
RETURNING s.offset_bytes, s.size_bytes AS slice_size_bytes, s.attempts, s.deaths, s.dispatched_at, p.*,
  now() - p.failing_since AS failing_for,
  EXISTS (SELECT FROM breaker b WHERE b.store = p.store) AS breaker_open,
  set_config('synchronous_commit', 'off', true)
