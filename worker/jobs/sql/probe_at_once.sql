-- The profiles of these stores have changed: an unusable one is probed at once, and jobs that waited for a profile go on.
WITH probed AS (
  UPDATE breaker SET probe_at = now() WHERE store = ANY(%(stores)s::text[]) AND probe_at > now() RETURNING store
), steps AS (
  UPDATE job SET not_before = now() WHERE id IN (
    SELECT id FROM job
    WHERE step = 'pending' AND not_before > now() AND store = ANY(%(stores)s::text[]) AND error->>'code' = ANY(%(codes)s::text[])
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
), slices AS (
  UPDATE slice s SET not_before = now() FROM (
    SELECT o.job_id, o.number FROM slice o JOIN job j ON j.id = o.job_id
    WHERE o.state = 'pending' AND o.not_before > now() AND j.store = ANY(%(stores)s::text[])
      AND o.error->>'code' = ANY(%(codes)s::text[])
    ORDER BY o.job_id, o.number FOR NO KEY UPDATE OF o SKIP LOCKED) w
  WHERE s.job_id = w.job_id AND s.number = w.number
)
SELECT store FROM probed
