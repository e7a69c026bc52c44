-- What was held is dispatched again. The time does not count as time in failure: it is added to when the jobs began to fail. Time in
-- which a pause or another hold goes on is added when that ends; so all holds are locked, and of two releases one waits.
WITH holds AS MATERIALIZED (
  SELECT kind, name, at FROM hold ORDER BY kind, name FOR UPDATE
), released AS (
  DELETE FROM hold h USING holds l
  WHERE l.kind = %(kind)s AND l.name = %(name)s AND h.kind = l.kind AND h.name = l.name
  RETURNING h.kind, h.name, h.at
), held AS MATERIALIZED (
  SELECT j.id, j.failing_since, h.at,
    least(now(), j.paused_at, (
      SELECT min(h.at) FROM holds h WHERE (h.kind <> %(kind)s OR h.name <> %(name)s) AND /*: hold_covers :*/)) AS until
  FROM released h JOIN job j ON j.finished_at IS NULL AND j.failing_since IS NOT NULL AND /*: hold_covers :*/
  ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), shifted AS (
  UPDATE job j SET failing_since = j.failing_since + greatest(interval '0', h.until - greatest(h.at, h.failing_since))
  FROM held h WHERE j.id = h.id
)
SELECT at FROM released
