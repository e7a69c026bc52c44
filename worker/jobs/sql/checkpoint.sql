-- The slices of one process that the store has acknowledged, in one statement. Locks: jobs by id, each before its slices.
-- A row whose epoch, token, worker or state is no longer ours drops out alone; `done` under our own token is success, so the
-- same batch may be sent again. The checkpoint that leaves no slice moves its job on.
-- May commit asynchronously: a checkpoint lost with the database only sends the slice again.
WITH held AS MATERIALIZED (
  SELECT s.job_id, s.number, s.token, s.state, s.sent_bytes, a.tag, a.digest
  FROM (
    SELECT * FROM json_to_recordset(%(slices)s::json)
      AS a(job_id uuid, number int, token bigint, epoch int, tag text, digest text)
    ORDER BY job_id, number OFFSET 0
  ) AS a
  CROSS JOIN LATERAL (SELECT id, epoch FROM job WHERE id = a.job_id OFFSET 0 FOR NO KEY UPDATE) AS j
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
  RETURNING s.job_id, s.size_bytes, h.sent_bytes
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
  FROM (SELECT job_id, count(*) AS slices, sum(size_bytes) AS bytes, sum(sent_bytes) AS sent_bytes FROM done GROUP BY job_id) AS d
  WHERE j.id = d.job_id
  RETURNING j.id, j.epoch, j.state, j.step, j.slices_left
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor)
  SELECT id, 'slices_done', 'uploading', 'finishing', epoch, 'worker ' || %(worker)s::uuid FROM moved
  WHERE state = 'finishing' AND step = 'pending' AND slices_left = 0
)
SELECT h.job_id, h.number, h.token, m.state, m.slices_left, set_config('synchronous_commit', 'off', true)
FROM held h LEFT JOIN moved m ON m.id = h.job_id
