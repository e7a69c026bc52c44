-- The store answers again. The time it was unusable does not count as time in failure.
WITH closed AS (
  DELETE FROM breaker WHERE store = %(store)s RETURNING store, opened_at
), shifted AS (
  UPDATE job SET failing_since = NULL, not_before = NULL WHERE id IN (
    SELECT j.id FROM job j JOIN closed c ON c.store = j.store
    WHERE j.finished_at IS NULL
      AND (j.failing_since IS NOT NULL OR j.not_before IS NOT NULL)
    ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED)
)
SELECT store FROM closed
