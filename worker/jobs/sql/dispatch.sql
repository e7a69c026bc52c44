-- Chosen steps and slices are marked before they are published; the token grows, so that older messages find nothing.
WITH step_rows AS MATERIALIZED (
  SELECT id FROM job
  WHERE id = ANY(%(steps)s::uuid[]) AND step = 'pending' AND not_before IS NULL AND (paused_at IS NULL OR state <> 'queued')
  ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
), slice_rows AS MATERIALIZED (
  SELECT s.job_id, s.number
  FROM unnest(%(jobs)s::uuid[], %(numbers)s::int[]) AS a(job_id, number)
  JOIN slice s USING (job_id, number) JOIN job j ON j.id = s.job_id
  WHERE s.state = 'pending' AND s.not_before IS NULL AND j.state = 'uploading' AND j.paused_at IS NULL
  ORDER BY s.job_id, s.number FOR NO KEY UPDATE OF s SKIP LOCKED
), steps AS (
  UPDATE job j SET step = 'dispatched', token = j.token + 1, dispatched_at = now(), worker = NULL, lease_until = NULL
  FROM step_rows r WHERE j.id = r.id
  RETURNING j.id AS job_id, NULL::int AS number, j.token, j.epoch, j.run, j.state, j.store, j.key, j.size_bytes, j.deaths,
            NULL::bigint AS offset_bytes, NULL::int AS slice_size_bytes, j.slices_total, j.priority
), slices AS (
  UPDATE slice s SET state = 'dispatched', token = s.token + 1, dispatched_at = now()
  FROM slice_rows r JOIN job j ON j.id = r.job_id
  WHERE s.job_id = r.job_id AND s.number = r.number
  RETURNING s.job_id, s.number, s.token, j.epoch, j.run, j.state, j.store, j.key, j.size_bytes, s.deaths,
            s.offset_bytes, s.size_bytes, j.slices_total, j.priority
)
SELECT * FROM steps UNION ALL SELECT * FROM slices
