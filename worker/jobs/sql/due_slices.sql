-- The first due slices of every lane (store, tenant): of its most urgent and oldest uploading jobs, as many as the job's window
-- has room for; of a job whose slices go in order, the next one and only when none is in flight.
WITH RECURSIVE lanes AS (
  (SELECT store, tenant FROM job WHERE /*: slices_may_start :*/ ORDER BY store, tenant LIMIT 1)
  UNION ALL
  SELECT n.store, n.tenant FROM lanes l CROSS JOIN LATERAL (
    SELECT store, tenant FROM job
    WHERE /*: slices_may_start :*/ AND (store, tenant) > (l.store, l.tenant)
    ORDER BY store, tenant LIMIT 1) n
), flying AS MATERIALIZED (
  SELECT job_id, count(*) AS n FROM slice WHERE state IN (/*: slices_in_flight :*/) GROUP BY job_id
)
SELECT c.job_id, c.number, l.store, l.tenant, c.priority, 'uploading' AS state, c.deaths, true AS carries,
       c.size_bytes AS carried_bytes
FROM lanes l CROSS JOIN LATERAL (
  SELECT j.id AS job_id, j.priority, s.number, s.deaths, s.size_bytes
  FROM job j LEFT JOIN flying f ON f.job_id = j.id
  CROSS JOIN LATERAL (
    SELECT number, deaths, size_bytes FROM slice
    WHERE job_id = j.id AND state = 'pending' AND not_before IS NULL
      AND (NOT j.ordered OR f.n IS NULL AND number = (
        SELECT min(number) FROM slice o WHERE o.job_id = j.id AND o.state <> 'done'))
    ORDER BY number
    LIMIT greatest(0, CASE WHEN j.ordered THEN 1 ELSE %(window)s END - coalesce(f.n, 0))) s
  WHERE j.state = 'uploading' AND j.paused_at IS NULL AND j.store = l.store AND j.tenant = l.tenant
  ORDER BY j.priority, j.id, s.number
  LIMIT %(per_lane)s) c
WHERE l.store <> ALL(%(blocked)s::text[]) AND l.tenant <> ALL(%(held_tenants)s::text[])
