-- A task takes the step it was sent for. Guard: epoch, token, the step's own state of the job; paused jobs begin nothing.
WITH claimed AS (
  UPDATE job SET
    state = CASE state WHEN 'queued' THEN 'initializing' ELSE state END,
    step = 'running',
    worker = %(worker)s,
    lease_until = now() + make_interval(secs => %(lease_s)s),
    started_at = coalesce(started_at, now()),
    finish_claims = finish_claims + (state = 'finishing')::int,
    updated_at = now()
  WHERE id = %(job)s AND epoch = %(epoch)s AND token = %(token)s AND step = 'dispatched' AND state = %(source)s
    AND (paused_at IS NULL OR state <> 'queued')
  RETURNING *
), told AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor)
  SELECT id, 'init_claimed', 'queued', 'initializing', epoch, %(actor)s FROM claimed WHERE state = 'initializing'
)
SELECT claimed.*, EXISTS (SELECT FROM breaker b WHERE b.store = claimed.store) AS breaker_open FROM claimed
