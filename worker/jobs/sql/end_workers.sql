-- Workers silent for too long are dead. Rows of workers that ended long ago are forgotten.
WITH forgotten AS (
  DELETE FROM worker w WHERE w.ended_at < now() - make_interval(days => 7)
), dead AS (
  UPDATE worker SET ended_at = now(), "end" = 'dead'
  WHERE ended_at IS NULL AND heartbeat_at < now() - make_interval(secs => %(dead_after_s)s)
  RETURNING id, name
)
SELECT id, name FROM dead
