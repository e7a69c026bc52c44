-- Chosen steps and slices are marked before they are published; the token grows, so that older messages find nothing.
-- A hold that was set since the tick read the others is seen here: from its commit on nothing of it is dispatched.
-- Each row is found by its key alone (OFFSET 0 keeps the conditions outside), whatever the planner thinks of the indexes.
WITH holds AS MATERIALIZED (
  SELECT kind, name FROM hold
), step_rows AS MATERIALIZED (
  SELECT j.id, j.state FROM unnest(%(steps)s::uuid[]) AS a(id) CROSS JOIN LATERAL (
    SELECT * FROM job WHERE job.id = a.id OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) AS j
  WHERE /*: due_step :*/ AND NOT EXISTS (SELECT FROM holds h WHERE /*: hold_covers :*/)
), slice_rows AS MATERIALIZED (
  SELECT s.job_id, s.number FROM unnest(%(jobs)s::uuid[], %(numbers)s::int[]) AS a(job_id, number) CROSS JOIN LATERAL (
    SELECT * FROM slice WHERE slice.job_id = a.job_id AND slice.number = a.number OFFSET 0
    FOR NO KEY UPDATE SKIP LOCKED) AS s
  WHERE s.state = 'pending' AND s.not_before IS NULL
    AND (SELECT /*: slices_may_start :*/ AND NOT EXISTS (SELECT FROM holds h WHERE /*: hold_covers :*/) FROM job j WHERE j.id = a.job_id)
), steps AS (
  UPDATE job j SET state = r.state,  -- for the constraints: see new_epoch.sql
    step = 'dispatched', token = j.token + 1, dispatched_at = now(), /*: released :*/
  FROM step_rows r WHERE j.id = r.id
  RETURNING /*: message_of_a_step :*/
), slices AS (
  UPDATE slice s SET state = 'dispatched', token = s.token + 1, dispatched_at = now()
  FROM slice_rows r WHERE s.job_id = r.job_id AND s.number = r.number
  RETURNING s.job_id, s.number, s.token, s.deaths, s.offset_bytes, s.size_bytes
)
SELECT * FROM steps
UNION ALL
SELECT /*: message_of_a_slice :*/
FROM slices s JOIN job j ON j.id = s.job_id
