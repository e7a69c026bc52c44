-- A task takes the slice it was sent for. The job's row is locked first: no claim can follow a committed cancel or pause.
-- May commit asynchronously: a claim lost with the database only sends the slice again.
UPDATE slice s SET
  state = 'sending',
  worker = %(worker)s,
  lease_until = now() + make_interval(secs => %(slack_s)s + s.size_bytes / %(low_speed)s::float8),
  claimed_at = now(),
  sends = s.sends + 1
FROM (
  SELECT epoch, state, paused_at, tenant, source, fingerprint, store, key, target, session, failing_since, error, retry_for_s,
         session_losses
  FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE
) AS j
WHERE j.epoch = %(epoch)s AND j.state = 'uploading' AND j.paused_at IS NULL
  AND s.job_id = %(job)s AND s.number = %(number)s AND s.token = %(token)s
  -- a CASE, lest it be looked for among all that are in flight
  AND CASE s.state WHEN 'dispatched' THEN true WHEN 'sending' THEN %(reclaim)s AND s.worker = %(worker)s ELSE false END
RETURNING s.offset_bytes, s.size_bytes AS slice_size_bytes, s.attempts, s.dispatched_at, s.error AS slice_error,
  j.tenant, j.source, j.fingerprint, j.store, j.key, j.target, j.session, j.error, j.retry_for_s, j.session_losses,
  extract(epoch FROM now() - j.failing_since)::float8 AS failing_for_s,
  EXISTS (SELECT FROM breaker b WHERE b.store = j.store) AS breaker_open,
  set_config('synchronous_commit', 'off', true)
