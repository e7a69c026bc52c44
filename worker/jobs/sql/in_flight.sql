-- What is acknowledged of the content of `job` and not done, as [size of the file, on its way now, in flight]. It stands as a
-- column in the statement that reads the job: a checkpoint between two would count bytes twice or lose them.
-- A worker's report counts only for the claim that it names, alive or not: until the claim is taken back, its bytes are not
-- lost. `job.sent_bytes` is what was acknowledged of what was given back; of a slice that is sent again the greater counts.
SELECT ARRAY[
  coalesce(job.size_bytes, max(c.size_bytes)),
  coalesce(sum(c.bytes), 0)::bigint,
  greatest(0, least(
    (coalesce(job.sent_bytes, 0) + coalesce(sum(greatest(c.bytes - coalesce(c.sent_bytes, 0), 0)), 0))::bigint,
    coalesce(job.size_bytes, max(c.size_bytes)) - job.bytes_done))]
FROM (
  SELECT s.sent_bytes, NULL::bigint AS size_bytes, least(r.bytes, s.size_bytes) AS bytes
  FROM (SELECT DISTINCT worker FROM slice WHERE job_id = job.id AND state = 'sending') AS holder
  CROSS JOIN LATERAL (
    SELECT r.number, r.token, r.bytes
    FROM worker w
    CROSS JOIN LATERAL jsonb_to_recordset(w.sending) AS r(job uuid, number int, token bigint, bytes bigint)
    WHERE w.id = holder.worker AND r.job = job.id OFFSET 0
  ) AS r
  JOIN slice s ON s.job_id = job.id AND s.number = r.number
  WHERE s.state = 'sending' AND s.token = r.token AND s.worker = holder.worker
    AND job.state NOT IN ('succeeded', 'cancelled')
  UNION ALL
  -- a file sent in one request, whose size only the report knows
  SELECT job.sent_bytes, r.size, least(r.bytes, r.size)
  FROM worker w
  CROSS JOIN LATERAL jsonb_to_recordset(w.sending) AS r(job uuid, number int, token bigint, bytes bigint, size bigint)
  WHERE job.state = 'initializing' AND job.step = 'running' AND w.id = job.worker
    AND r.job = job.id AND r.number IS NULL AND r.token = job.token
) AS c
