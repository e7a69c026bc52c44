-- An event that moves nothing, by the holder of the step.
WITH held AS MATERIALIZED (
  SELECT id, epoch FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
)
INSERT INTO event (job_id, kind, epoch, actor, cause)
SELECT id, %(kind)s, epoch, %(actor)s, %(cause)s::jsonb FROM held
RETURNING id
