-- Messages that may be lost are published again with the same token: the claim is guarded, one copy wins.
WITH step_rows AS MATERIALIZED (
  SELECT id FROM job WHERE step = 'dispatched' AND dispatched_at < coalesce(%(before)s::timestamptz, 'infinity')
  ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
), slice_rows AS MATERIALIZED (
  SELECT s.job_id, s.number FROM slice s
  WHERE s.state = 'dispatched' AND s.dispatched_at < coalesce(%(before)s::timestamptz, 'infinity')
    -- see wake.sql for the others
    AND (SELECT /*: slices_may_start :*/ FROM job j WHERE j.id = s.job_id)
  ORDER BY s.job_id, s.number FOR NO KEY UPDATE OF s SKIP LOCKED
), steps AS (
  UPDATE job j SET dispatched_at = now() FROM step_rows r WHERE j.id = r.id
  RETURNING /*: message_of_a_step :*/
), slices AS (
  UPDATE slice s SET dispatched_at = now()
  FROM slice_rows r WHERE s.job_id = r.job_id AND s.number = r.number
  RETURNING s.job_id, s.number, s.token, s.deaths, s.offset_bytes, s.size_bytes
)
SELECT * FROM steps
UNION ALL
SELECT /*: message_of_a_slice :*/
FROM slices s JOIN job j ON j.id = s.job_id
