-- An operator's retry, of jobs that to_retry.sql has locked. Session and checkpoints are kept where the store may still have them;
-- `fresh` starts a new epoch. So does init, where the file is no longer the one that they are of. `scratch`: an operator has asked for
-- that, and the history keeps the session: nothing else does.
-- In the order of the targets, as enqueue.sql: of two commands that want the same targets one waits for the other. No hash join
-- can serve `= ANY (ARRAY[…])`: it would write in the order of the table, and read all slices.
-- `run` grows, so that the tasks have ids that no revoke and no failed task in Flower stands against.
WITH asked AS MATERIALIZED (
  SELECT j.id, j.state, j.target, j.session, a.fresh
  FROM (SELECT * FROM unnest((SELECT %(jobs)s::uuid[]), (SELECT %(fresh)s::bool[])) AS a(id, fresh) ORDER BY id OFFSET 0) AS a
  CROSS JOIN LATERAL (SELECT id, state, target, session FROM job WHERE id = a.id OFFSET 0 FOR NO KEY UPDATE) AS j
  WHERE j.state IN ('failed', 'cancelled')
  ORDER BY j.target
), moved AS (
  UPDATE job j SET
    state = 'queued', step = 'pending', run = j.run + 1, /*: released :*/, not_before = NULL,
    failing_since = NULL, attempts = 0, deaths = 0, session_losses = 0, error = NULL, failure_code = NULL, result = NULL,
    finished_at = NULL, finish_claims = 0, paused_at = NULL, pause_reason = NULL, abandoned_at = NULL,
    epoch = j.epoch + a.fresh::int,
    session = CASE WHEN NOT a.fresh THEN j.session END,
    fingerprint = CASE WHEN NOT a.fresh THEN j.fingerprint END,
    hashing = CASE WHEN NOT a.fresh THEN j.hashing END,
    digests = CASE WHEN NOT a.fresh THEN j.digests END,
    existed = CASE WHEN NOT a.fresh THEN j.existed END,
    slices_total = CASE WHEN NOT a.fresh THEN j.slices_total END,
    slices_left = CASE WHEN NOT a.fresh THEN j.slices_left END,
    bytes_done = CASE WHEN a.fresh THEN 0 ELSE j.bytes_done END,
    sent_bytes = CASE WHEN NOT a.fresh THEN j.sent_bytes END,
    updated_at = now()
  FROM asked a WHERE j.id = ANY (ARRAY[a.id])
  RETURNING j.id, j.epoch, a.state AS before, a.fresh, a.session, a.target
), cleared AS (
  DELETE FROM slice s USING moved m WHERE s.job_id = ANY (ARRAY[m.id]) AND m.fresh
), restarted AS (
  UPDATE slice s SET attempts = 0, deaths = 0, not_before = NULL, error = NULL
  FROM moved m WHERE s.job_id = ANY (ARRAY[m.id]) AND NOT m.fresh AND s.state <> 'done'
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'retried', before, 'queued', epoch, %(actor)s, jsonb_build_object('force', %(force)s::boolean, 'fresh', fresh) || coalesce(%(cause)s::jsonb, '{}')
  FROM moved
  UNION ALL
  SELECT id, 'session_left_open', NULL, NULL, epoch, %(actor)s,
    jsonb_build_object('reason', 'the job was retried from scratch', 'session', session, 'target', target)
  FROM moved WHERE %(scratch)s AND session IS NOT NULL
)
SELECT id FROM moved
