-- The first due steps of every lane (store, tenant), most urgent and oldest first. The lanes are found by hopping through the
-- index, so the cost grows with the lanes and not with the jobs that wait in them.
WITH RECURSIVE lanes AS (
  (SELECT store, tenant FROM job
   WHERE /*: due_step :*/
   ORDER BY store, tenant LIMIT 1)
  UNION ALL
  SELECT n.store, n.tenant FROM lanes l CROSS JOIN LATERAL (
    SELECT store, tenant FROM job
    WHERE /*: due_step :*/
      AND (store, tenant) > (l.store, l.tenant)
    ORDER BY store, tenant LIMIT 1) n
)
SELECT c.id AS job_id, NULL::int AS number, l.store, l.tenant, c.priority, c.state, c.deaths, c.size_bytes AS carried_bytes,
       c.carries  -- as in snapshot.sql
FROM lanes l CROSS JOIN LATERAL (
  SELECT id, priority, state, deaths, size_bytes, /*: step_carries :*/ AS carries FROM job
  WHERE /*: due_step :*/
    AND store = l.store AND tenant = l.tenant
  ORDER BY priority, id LIMIT %(per_lane)s) c
WHERE l.store <> ALL(%(blocked)s::text[]) AND l.tenant <> ALL(%(held_tenants)s::text[])
