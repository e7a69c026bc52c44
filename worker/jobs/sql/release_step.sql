-- A step goes back, to be dispatched again: init to `queued`, finish and abort where they are. `delay_s` NULL means at once.
-- A job that was cancelled meanwhile only lets go of the claim; the dispatcher dispatches the abort when all claims have ended.
WITH held AS MATERIALIZED (
  SELECT id, epoch, state, error FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
    AND state IN (/*: states_with_a_step :*/)
), freed AS (
  UPDATE job j SET
    /*: step_goes_back :*/,
    not_before = now() + make_interval(secs => %(delay_s)s::float8),
    attempts = j.attempts + %(attempt)s,
    failing_since = CASE WHEN %(error)s::jsonb IS NULL THEN j.failing_since
                         WHEN %(restart_clock)s THEN now() ELSE coalesce(j.failing_since, now()) END,
    error = coalesce(%(error)s::jsonb, j.error),
    sent_bytes = greatest(j.sent_bytes, nullif(%(sent_bytes)s, 0)),  -- of a file sent in one request
    size_bytes = coalesce(j.size_bytes, %(size_bytes)s::bigint),
    updated_at = now()
  FROM held p WHERE j.id = p.id
  RETURNING j.id, j.epoch, p.state AS before, j.state, p.error AS old_error
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, CASE before WHEN 'initializing' THEN 'init_deferred' WHEN 'finishing' THEN 'finish_deferred' ELSE 'abort_deferred' END,
         before, state, epoch, %(actor)s, coalesce(%(error)s::jsonb, '{"code": "interrupted"}'::jsonb)
  FROM freed
  -- a long outage is one line of history, not one an attempt; but every move of the state is written
  WHERE before <> state OR (%(error)s::jsonb IS NOT NULL AND old_error->>'code' IS DISTINCT FROM %(error)s::jsonb->>'code')
)
SELECT state FROM freed
