-- What decides why a job waits, of its row and its slices: what is in flight, the next slice that is due, and of slices that all
-- wait for another attempt the first. Of a job whose slices go in order only the next one counts.
SELECT j.id, j.tenant, j.state, j.step, j.priority, j.source, j.store, j.key, j.target, j.paused_at, j.pause_reason, j.not_before,
  j.failing_since, j.error, j.dispatched_at, j.size_bytes, j.slices_total, j.slices_left, j.carries, j.ignores_breaker,
  j.abandoned_at IS NOT NULL AS abandoned,
  w.name AS worker, w.heartbeat_at, f.sending, f.dispatched, f.slice_dispatched_at, d.size_bytes AS due_bytes,
  r.not_before AS slice_not_before, r.error AS slice_error,
  CASE WHEN j.paused_at IS NOT NULL THEN
    (SELECT actor FROM event WHERE job_id = j.id AND kind = 'paused' ORDER BY id DESC LIMIT 1) END AS paused_by
FROM (
  SELECT *, /*: step_carries :*/ AS carries, /*: abort_ignores_breaker :*/ AS ignores_breaker FROM job WHERE id = %(job)s OFFSET 0
) AS j
LEFT JOIN worker w ON w.id = j.worker AND j.step = 'running'
LEFT JOIN LATERAL (
  SELECT count(*) FILTER (WHERE state = 'sending') AS sending, count(*) FILTER (WHERE state = 'dispatched') AS dispatched,
         min(dispatched_at) FILTER (WHERE state = 'dispatched') AS slice_dispatched_at
  FROM slice WHERE job_id = j.id AND state IN (/*: slices_in_flight :*/)) AS f ON j.state IN ('uploading', 'cancelling')
LEFT JOIN LATERAL (
  SELECT size_bytes FROM slice
  WHERE job_id = j.id AND state = 'pending' AND not_before IS NULL
    AND (NOT j.ordered OR number = (SELECT min(number) FROM slice o WHERE o.job_id = j.id AND o.state <> 'done'))
  ORDER BY number LIMIT 1) AS d ON j.state = 'uploading'
LEFT JOIN LATERAL (
  SELECT not_before, error FROM slice
  WHERE job_id = j.id AND state = 'pending' AND not_before IS NOT NULL
    AND (NOT j.ordered OR number = (SELECT min(number) FROM slice o WHERE o.job_id = j.id AND o.state <> 'done'))
  ORDER BY not_before LIMIT 1) AS r ON j.state = 'uploading' AND d.size_bytes IS NULL
