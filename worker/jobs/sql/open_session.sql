-- Init has its session: stored together with the file that it is of, the plan and one row a slice; those that the store
-- already holds are done.
-- A job that was cancelled meanwhile only remembers the session, so that the abort step can clean it up.
WITH held AS MATERIALIZED (
  SELECT id FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
    AND state IN (/*: states_of_init :*/)
), moved AS (
  UPDATE job SET
    state = CASE WHEN state = 'cancelling' THEN state WHEN %(left)s = 0 THEN 'finishing' ELSE 'uploading' END,
    step = CASE WHEN state <> 'cancelling' AND %(left)s = 0 THEN 'pending' ELSE 'idle' END,
    /*: released :*/, not_before = NULL, failing_since = NULL, error = NULL, attempts = 0, deaths = 0,
    existed = coalesce(existed, false),  -- unknown where an object may not be replaced: there was none then
    session = %(session)s::jsonb, ordered = %(ordered)s, fingerprint = %(fingerprint)s::jsonb, size_bytes = %(size_bytes)s,
    slice_bytes = %(slice_bytes)s, slices_total = %(total)s, slices_left = %(left)s, bytes_done = %(bytes_done)s, sent_bytes = NULL,
    updated_at = now()
  FROM held WHERE job.id = held.id
  RETURNING job.id, epoch, state, size_bytes
), planned AS (
  INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token, claimed_at, done_at)
  SELECT m.id, n, n * %(slice_bytes)s::bigint, least(%(slice_bytes)s, m.size_bytes - n * %(slice_bytes)s::bigint),
         CASE WHEN n = ANY(%(held)s::int[]) THEN 'done' ELSE 'pending' END,
         (m.epoch - 1)::bigint << 32,  -- tokens of a later epoch are greater than any before
         CASE WHEN n = ANY(%(held)s::int[]) THEN now() END,
         CASE WHEN n = ANY(%(held)s::int[]) THEN now() END
  FROM moved m, generate_series(0, %(total)s - 1) AS n
  WHERE m.state <> 'cancelling'
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, CASE state WHEN 'finishing' THEN 'all_slices_held' ELSE 'session_opened' END, 'initializing', state, epoch,
         %(actor)s, %(cause)s::jsonb
  FROM moved WHERE state <> 'cancelling'
)
SELECT state FROM moved
