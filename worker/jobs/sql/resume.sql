WITH moved AS (
  UPDATE job SET paused_at = NULL, pause_reason = NULL, run = run + 1, updated_at = now()
  WHERE id = %(job)s AND paused_at IS NOT NULL AND state IN (/*: states_before_the_end :*/)
  RETURNING id, epoch, state
), history AS (
  INSERT INTO event (job_id, kind, epoch, actor) SELECT id, 'resumed', epoch, %(actor)s FROM moved
)
SELECT state FROM moved
