-- A task takes the step it was sent for. Guard: epoch, token, the step's own state of the job; paused jobs begin nothing.
-- `reclaim`: the answer to the same claim was lost; a claim that was granted still holds.
-- `leases`: seconds by store, for the stores that need another lease than `lease_s`.
WITH due AS MATERIALIZED (
  SELECT id, state FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE epoch = %(epoch)s AND token = %(token)s
    AND (step = 'dispatched' AND state = %(source)s OR %(reclaim)s AND step = 'running' AND worker = %(worker)s)
    AND (paused_at IS NULL OR state <> 'queued')
), claimed AS (
  UPDATE job j SET
    state = CASE d.state WHEN 'queued' THEN 'initializing' ELSE d.state END,
    step = 'running',
    worker = %(worker)s,
    lease_until = now() + make_interval(secs => coalesce((%(leases)s::json ->> store)::float8, %(lease_s)s)),
    started_at = coalesce(started_at, now()),
    finish_claims = finish_claims + (d.state = 'finishing')::int,
    updated_at = now()
  FROM due d WHERE j.id = d.id
  RETURNING j.*
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor)
  SELECT c.id, 'init_claimed', 'queued', 'initializing', c.epoch, %(actor)s
  FROM claimed c JOIN due d ON d.id = c.id WHERE d.state = 'queued'
)
SELECT claimed.*, extract(epoch FROM now() - claimed.failing_since)::float8 AS failing_for_s,
  EXISTS (SELECT FROM breaker b WHERE b.store = claimed.store) AS breaker_open FROM claimed
