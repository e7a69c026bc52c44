-- The abort step is done: the session is gone from the store, or was left open for the reason given. The history then keeps
-- the session: nothing else does, and whoever cleans up by hand needs it.
WITH held AS MATERIALIZED (
  SELECT id, epoch, session, target FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
    AND state = 'cancelling'
), moved AS (
  UPDATE job j SET state = 'cancelled', step = 'idle', /*: released :*/, not_before = NULL,
    failing_since = NULL, error = NULL, session = NULL, slices_left = NULL, sent_bytes = NULL,
    result = CASE WHEN %(left_open)s::text IS NULL THEN NULL ELSE jsonb_build_object('session_left_open', %(left_open)s::text) END,
    finished_at = now(), updated_at = now()
  FROM held h WHERE j.id = h.id
  RETURNING j.id, j.epoch, h.session, h.target
), cleared AS (
  DELETE FROM slice s USING moved m WHERE s.job_id = m.id
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'session_left_open', NULL, NULL, epoch, %(actor)s,
    jsonb_build_object('reason', %(left_open)s::text, 'session', session, 'target', target)
  FROM moved WHERE %(left_open)s::text IS NOT NULL
  UNION ALL
  SELECT id, 'cancelled', 'cancelling', 'cancelled', epoch, %(actor)s, NULL FROM moved
)
SELECT id FROM moved
