-- What dead, stopped or stuck workers held goes back. Liveness is the heartbeat alone; a lease is a hard deadline.
-- A death counts only against what its worker held when it died. Locks: jobs by id, then their slices by number.
WITH lost_slices AS MATERIALIZED (
  SELECT s.job_id, s.number, s.token, coalesce(w."end" = 'dead', false) AS died, r.bytes
  FROM slice s LEFT JOIN worker w ON w.id = s.worker
  LEFT JOIN LATERAL jsonb_to_recordset(w.sending) AS r(job uuid, number int, token bigint, bytes bigint)
    ON r.job = s.job_id AND r.number = s.number AND r.token = s.token
  WHERE s.state = 'sending' AND (w.id IS NULL OR w.ended_at IS NOT NULL OR s.lease_until < now())
), lost_steps AS MATERIALIZED (
  SELECT j.id, j.token, coalesce(w."end" = 'dead', false) AS died, r.bytes, r.size
  FROM job j LEFT JOIN worker w ON w.id = j.worker
  LEFT JOIN LATERAL jsonb_to_recordset(w.sending) AS r(job uuid, number int, token bigint, bytes bigint, size bigint)
    ON r.job = j.id AND r.number IS NULL AND r.token = j.token
  WHERE j.step = 'running' AND j.state IN (/*: states_with_a_step :*/)
    AND (w.id IS NULL OR w.ended_at IS NOT NULL OR j.lease_until < now())
), parents AS MATERIALIZED (
  SELECT id, state, step, token, epoch FROM job
  WHERE id IN (SELECT job_id FROM lost_slices UNION SELECT id FROM lost_steps)
  ORDER BY id FOR NO KEY UPDATE
), held AS MATERIALIZED (
  SELECT s.job_id, s.number, l.died, coalesce(s.sent_bytes, 0) AS before,
         greatest(s.sent_bytes, least(l.bytes, s.size_bytes), 0) AS sent_bytes
  FROM parents p JOIN slice s ON s.job_id = p.id JOIN lost_slices l USING (job_id, number)
  WHERE s.state = 'sending' AND s.token = l.token
  ORDER BY s.job_id, s.number FOR NO KEY UPDATE OF s
), freed AS (
  UPDATE slice s SET state = 'pending', /*: released :*/, not_before = NULL, deaths = s.deaths + h.died::int,
    sent_bytes = nullif(h.sent_bytes, 0)
  FROM held h WHERE s.job_id = h.job_id AND s.number = h.number
  RETURNING s.job_id, s.number, s.deaths, h.sent_bytes - h.before AS more_bytes
), more AS (
  SELECT job_id, sum(more_bytes) AS bytes FROM freed GROUP BY job_id
), stepped AS (
  UPDATE job j SET
    /*: step_goes_back :*/, deaths = j.deaths + l.died::int,
    size_bytes = coalesce(j.size_bytes, l.size),  -- a file sent in one request: only the report knew it
    sent_bytes = nullif(greatest(j.sent_bytes, l.bytes, 0) + coalesce(m.bytes, 0), 0), updated_at = now()
  FROM parents p JOIN lost_steps l USING (id) LEFT JOIN more m ON m.job_id = p.id
  WHERE j.id = p.id AND p.step = 'running' AND p.token = l.token
  RETURNING j.id, j.epoch, p.state AS before, j.state, j.deaths
), noted AS (
  UPDATE job j SET sent_bytes = coalesce(j.sent_bytes, 0) + m.bytes
  FROM more m JOIN parents p ON p.id = m.job_id
  WHERE j.id = p.id AND m.bytes > 0
    AND NOT EXISTS (SELECT FROM lost_steps l WHERE l.id = p.id AND p.step = 'running' AND p.token = l.token)
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'worker_lost', before, state, epoch, 'dispatcher', NULL::jsonb FROM stepped
  UNION ALL
  SELECT p.id, 'worker_lost', NULL, NULL, p.epoch, 'dispatcher', jsonb_build_object('slices', count(*))
  FROM freed f JOIN parents p ON p.id = f.job_id GROUP BY p.id, p.epoch
)
SELECT f.job_id, f.number, f.deaths, p.epoch FROM freed f JOIN parents p ON p.id = f.job_id
UNION ALL
SELECT id, NULL, deaths, epoch FROM stepped
