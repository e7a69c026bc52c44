-- Cancel: from its commit on no slice is claimed. Where nothing was ever begun it ends at once; else the abort step cleans up
-- after the last claim has ended.
WITH parent AS MATERIALIZED (
  SELECT id, epoch, state, step, started_at FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE state IN ('queued', 'initializing', 'uploading', 'finishing')
), freed AS (
  UPDATE slice s SET state = 'pending', worker = NULL FROM parent p WHERE s.job_id = p.id AND s.state = 'dispatched'
), moved AS (
  UPDATE job j SET
    state = CASE WHEN p.started_at IS NULL THEN 'cancelled' ELSE 'cancelling' END,
    step = CASE WHEN p.step = 'running' THEN 'running' ELSE 'idle' END,
    not_before = NULL, failing_since = NULL, paused_at = NULL, pause_reason = NULL, attempts = 0,
    finished_at = CASE WHEN p.started_at IS NULL THEN now() END, updated_at = now()
  FROM parent p WHERE j.id = p.id
  RETURNING j.id, j.epoch, p.state AS before, j.state
), told AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor)
  SELECT id, 'cancel_requested', before, 'cancelling', epoch, %(actor)s FROM moved
  UNION ALL
  SELECT id, 'cancelled', 'cancelling', 'cancelled', epoch, %(actor)s FROM moved WHERE state = 'cancelled'
)
SELECT state FROM moved
