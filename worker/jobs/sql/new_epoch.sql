-- The session is lost: the job starts afresh. Slices are deleted in the same transaction; late checkpoints fail on the epoch.
-- `other_file`: the session is given up, since the file is another one; what is known of the old file is forgotten, and that
-- counts as no loss.
WITH parent AS MATERIALIZED (
  SELECT id, epoch, state, step, token, worker FROM job WHERE id = %(job)s AND epoch = %(epoch)s FOR NO KEY UPDATE
), held AS MATERIALIZED (
  SELECT s.number FROM parent p JOIN slice s ON s.job_id = p.id
  WHERE s.number = %(number)s AND s.token = %(token)s AND s.worker = %(worker)s AND s.state = 'sending'
  FOR NO KEY UPDATE OF s
), allowed AS (
  SELECT p.id, p.state FROM parent p
  WHERE CASE WHEN %(number)s::int IS NULL
             THEN p.step = 'running' AND p.token = %(token)s AND p.worker = %(worker)s
                  AND p.state IN (/*: states_with_a_step :*/)
             ELSE p.state IN ('uploading', 'cancelling') AND EXISTS (SELECT FROM held) END
), freed AS (  -- a cancelled job lets go of the claim alone: the session is its abort's
  UPDATE slice s SET state = 'pending', /*: released :*/
  FROM allowed a WHERE a.state = 'cancelling' AND s.job_id = a.id AND s.number IN (SELECT number FROM held)
), let_go AS (
  UPDATE job j SET /*: lets_go :*/, not_before = now() + make_interval(secs => %(delay_s)s::float8), error = %(error)s::jsonb,
    updated_at = now()
  FROM allowed a WHERE j.id = a.id AND a.state = 'cancelling' AND %(number)s::int IS NULL
), cleared AS (
  DELETE FROM slice s USING allowed a WHERE s.job_id = a.id AND a.state <> 'cancelling'
), moved AS (
  UPDATE job j SET state = 'queued', step = 'pending', /*: released :*/,
    not_before = now() + make_interval(secs => %(delay_s)s::float8),
    epoch = j.epoch + 1, session = NULL, session_losses = j.session_losses + (NOT %(other_file)s)::int,
    fingerprint = CASE WHEN NOT %(other_file)s THEN j.fingerprint END,
    hashing = CASE WHEN NOT %(other_file)s THEN j.hashing END,
    digests = CASE WHEN NOT %(other_file)s THEN j.digests END,
    slices_total = NULL, slices_left = NULL, bytes_done = 0, sent_bytes = NULL, existed = NULL,
    -- of a job that had failed when this statement began, and was put back to work before it had the lock: the constraints
    -- are checked on the row that it began with, before the newer one is looked at
    finished_at = NULL,
    error = %(error)s::jsonb, updated_at = now()
  FROM allowed a WHERE j.id = a.id AND a.state <> 'cancelling'
  RETURNING j.id, j.epoch, a.state AS before
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'session_lost', before, 'queued', epoch, %(actor)s, %(error)s::jsonb FROM moved
)
SELECT CASE state WHEN 'cancelling' THEN state ELSE 'queued' END AS state FROM allowed
