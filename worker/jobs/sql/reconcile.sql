-- The slices as the store's own list has them: done if it lists them and we had claimed them in this session, else pending.
-- Used when an upload is taken up again (init) and when finish finds slices missing. What is being sent stays as it is. What
-- the store has lost was acknowledged all the same: the progress that the API reports does not fall.
WITH held AS MATERIALIZED (
  SELECT id, epoch, state FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
    AND state IN (/*: states_with_a_step :*/)
), rows AS MATERIALIZED (
  SELECT s.job_id, s.number, s.size_bytes, s.state, s.sent_bytes,
         CASE WHEN s.state = 'sending' THEN 'sending'
              WHEN s.number = ANY(%(listed)s::int[]) AND (s.state = 'done' OR s.claimed_at IS NOT NULL) THEN 'done'
              ELSE 'pending' END AS becomes
  FROM held h JOIN slice s ON s.job_id = h.id WHERE h.state <> 'cancelling'
  ORDER BY s.number FOR NO KEY UPDATE OF s
), corrected AS (
  UPDATE slice s SET state = r.becomes, /*: released :*/, not_before = NULL,
    done_at = CASE r.becomes WHEN 'done' THEN now() END,
    sent_bytes = CASE WHEN r.becomes = 'done' THEN NULL WHEN r.state = 'done' THEN r.size_bytes ELSE r.sent_bytes END
  FROM rows r
  WHERE s.job_id = r.job_id AND s.number = r.number AND r.state <> r.becomes
), counted AS (
  SELECT count(*) FILTER (WHERE becomes <> 'done') AS slices_left,
         coalesce(sum(size_bytes) FILTER (WHERE becomes = 'done'), 0) AS bytes_done,
         sum(CASE WHEN state = 'done' THEN size_bytes ELSE sent_bytes END) FILTER (WHERE becomes <> 'done') AS sent_bytes,
         count(*) FILTER (WHERE state = 'done' AND becomes = 'pending') AS missing
  FROM rows
), moved AS (
  UPDATE job j SET
    state = CASE c.slices_left WHEN 0 THEN 'finishing' ELSE 'uploading' END,
    step = CASE c.slices_left WHEN 0 THEN 'pending' ELSE 'idle' END,
    /*: released :*/, not_before = NULL, failing_since = NULL, attempts = 0, error = NULL,
    slices_left = c.slices_left, bytes_done = c.bytes_done, sent_bytes = c.sent_bytes, updated_at = now()
  FROM held h, counted c WHERE j.id = h.id AND h.state <> 'cancelling'
  RETURNING j.id, j.epoch, h.state AS before, j.state, j.slices_left, c.missing
), let_go AS (
  UPDATE job j SET /*: lets_go :*/, not_before = NULL, failing_since = NULL, attempts = 0, updated_at = now()
  FROM held h WHERE j.id = h.id AND h.state = 'cancelling'
  RETURNING j.state, j.slices_left
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id,
         CASE WHEN before = 'finishing' AND state = 'uploading' THEN 'slices_missing'
              WHEN before = 'finishing' THEN 'finish_deferred'
              WHEN state = 'finishing' THEN 'all_slices_held' ELSE 'session_opened' END,
         before, state, epoch, %(actor)s, jsonb_build_object('slices_left', slices_left, 'not_listed', missing)
  FROM moved
)
SELECT state, slices_left, missing FROM moved UNION ALL SELECT state, slices_left, 0 FROM let_go
