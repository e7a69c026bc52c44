-- The slices of one process that the store has acknowledged, in one statement. Locks: jobs by id, each before its slices.
-- A row whose epoch, token, worker or state is no longer ours drops out alone; `done` under our own token is success, so the
-- same batch may be sent again. The checkpoint that leaves no slice moves its job on. The first one after a failure is in the
-- history: it is the end of a wait. No other checkpoint writes a row there.
-- May commit asynchronously: a checkpoint lost with the database only sends the slice again.
WITH held AS MATERIALIZED (
  SELECT s.job_id, s.number, s.token, s.state, s.sent_bytes, a.tag, a.digest, j.failure, j.failing_since
  FROM (
    SELECT * FROM json_to_recordset(%(slices)s::json)
      AS a(job_id uuid, number int, token bigint, epoch int, tag text, digest text)
    ORDER BY job_id, number OFFSET 0
  ) AS a
  CROSS JOIN LATERAL (
    SELECT id, epoch, failing_since, CASE WHEN state = 'uploading' THEN error ->> 'code' END AS failure
    FROM job WHERE id = a.job_id OFFSET 0 FOR NO KEY UPDATE
  ) AS j
  CROSS JOIN LATERAL (
    SELECT job_id, number, token, worker, state, sent_bytes
    FROM slice WHERE job_id = j.id AND number = a.number OFFSET 0 FOR NO KEY UPDATE
  ) AS s
  WHERE j.epoch = a.epoch AND s.token = a.token AND s.worker = %(worker)s AND s.state IN ('sending', 'done')
), done AS (
  UPDATE slice s SET state = 'done', lease_until = NULL, done_at = now(), error = NULL, sent_bytes = NULL,
    tag = h.tag, digest = h.digest
  FROM held h
  WHERE s.job_id = h.job_id AND s.number = h.number AND h.state = 'sending'
  RETURNING s.job_id, s.size_bytes, h.sent_bytes, h.failure, h.failing_since
), moved AS (
  UPDATE job j SET
    slices_left = j.slices_left - d.slices,
    bytes_done = j.bytes_done + d.bytes,
    sent_bytes = j.sent_bytes - coalesce(d.sent_bytes, 0),
    failing_since = NULL,
    error = CASE WHEN j.state = 'uploading' THEN NULL ELSE j.error END,
    state = CASE WHEN j.state = 'uploading' AND j.slices_left = d.slices THEN 'finishing' ELSE j.state END,
    step = CASE WHEN j.state = 'uploading' AND j.slices_left = d.slices THEN 'pending' ELSE j.step END,
    not_before = CASE WHEN j.state = 'uploading' AND j.slices_left = d.slices THEN NULL ELSE j.not_before END,
    updated_at = now()
  FROM (SELECT job_id, count(*) AS slices, sum(size_bytes) AS bytes, sum(sent_bytes) AS sent_bytes,
               max(failure) AS failure, max(failing_since) AS failing_since FROM done GROUP BY job_id) AS d
  WHERE j.id = d.job_id
  RETURNING j.id, j.epoch, j.state, j.step, j.slices_left, d.failure, d.failing_since
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT m.id, e.kind, e.from_state, e.to_state, m.epoch, 'worker ' || %(worker)s::uuid, e.cause
  FROM moved m CROSS JOIN LATERAL (VALUES
    ('recovered', NULL, NULL, m.failure IS NOT NULL,
     jsonb_build_object('code', m.failure, 'failing_since', m.failing_since)),
    ('slices_done', 'uploading', 'finishing', m.state = 'finishing' AND m.step = 'pending' AND m.slices_left = 0, NULL)
  ) AS e(kind, from_state, to_state, holds, cause)
  WHERE e.holds
)
SELECT h.job_id, h.number, h.token, m.state, m.slices_left, set_config('synchronous_commit', 'off', true)
FROM held h LEFT JOIN moved m ON m.id = h.job_id
