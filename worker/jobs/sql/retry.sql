-- An operator's retry. Session and checkpoints are kept where the store may still have them; `fresh` starts a new epoch. So
-- does init, where the file is no longer the one that they are of.
-- `run` grows, so that the tasks have ids that no revoke and no failed task in Flower stands against.
WITH moved AS (
  UPDATE job SET
    state = 'queued', step = 'pending', run = run + 1, /*: released :*/, not_before = NULL,
    failing_since = NULL, attempts = 0, deaths = 0, session_losses = 0, error = NULL, result = NULL, finished_at = NULL,
    finish_claims = 0, paused_at = NULL, pause_reason = NULL,
    epoch = epoch + %(fresh)s::int,
    session = CASE WHEN %(fresh)s THEN NULL ELSE session END,
    fingerprint = CASE WHEN %(fresh)s THEN NULL ELSE fingerprint END,
    hashing = CASE WHEN %(fresh)s THEN NULL ELSE hashing END,
    digests = CASE WHEN %(fresh)s THEN NULL ELSE digests END,
    existed = CASE WHEN %(fresh)s THEN NULL ELSE existed END,
    slices_total = CASE WHEN %(fresh)s THEN NULL ELSE slices_total END,
    slices_left = CASE WHEN %(fresh)s THEN NULL ELSE slices_left END,
    bytes_done = CASE WHEN %(fresh)s THEN 0 ELSE bytes_done END,
    sent_bytes = CASE WHEN %(fresh)s THEN NULL ELSE sent_bytes END,
    updated_at = now()
  WHERE id = %(job)s AND state = %(before)s
  RETURNING id, epoch
), cleared AS (
  DELETE FROM slice s USING moved m WHERE s.job_id = m.id AND %(fresh)s
), restarted AS (
  UPDATE slice s SET attempts = 0, deaths = 0, not_before = NULL, error = NULL
  FROM moved m WHERE s.job_id = m.id AND NOT %(fresh)s AND s.state <> 'done'
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'retried', %(before)s, 'queued', epoch, %(actor)s, jsonb_build_object('force', %(force)s::boolean, 'fresh', %(fresh)s)
  FROM moved
)
SELECT id FROM moved
