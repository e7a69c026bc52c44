-- The object is ours and proven. The slices are folded into a summary and deleted: their table holds live work only.
WITH held AS MATERIALIZED (
  SELECT id, epoch, state FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
    AND state IN (/*: states_with_a_step :*/)
), folded AS (
  SELECT count(s.*) AS slices, coalesce(sum(s.sends), 0) AS sends, coalesce(sum(s.attempts), 0) AS failed_attempts,
         coalesce(sum(s.deaths), 0) AS deaths
  FROM held h LEFT JOIN slice s ON s.job_id = h.id
), moved AS (
  UPDATE job j SET
    state = 'succeeded', step = 'idle', /*: released :*/, not_before = NULL, failing_since = NULL,
    error = NULL, session = NULL, hashing = NULL, digests = NULL, slices_left = 0, sent_bytes = NULL,
    size_bytes = coalesce(j.size_bytes, (%(result)s::jsonb ->> 'size_bytes')::bigint),  -- sent in one request: not noted before
    bytes_done = coalesce(j.size_bytes, (%(result)s::jsonb ->> 'size_bytes')::bigint),
    result = %(result)s::jsonb || jsonb_build_object('slices', to_jsonb(f)),
    finished_at = now(), updated_at = now()
  FROM held h, folded f WHERE j.id = h.id
  RETURNING j.id, j.epoch, h.state AS before
), cleared AS (
  DELETE FROM slice s USING moved m WHERE s.job_id = m.id
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id,
         CASE before WHEN 'initializing' THEN 'stored_at_once' WHEN 'finishing' THEN 'proven' ELSE 'cancel_too_late' END,
         before, 'succeeded', epoch, %(actor)s, %(result)s::jsonb
  FROM moved
)
SELECT before FROM moved
