-- Aborts that do not wait for their store's breaker: where no session is known, which is one question; where the store has
-- left the leader's stores file, so that nothing will close the breaker; and where a day is over without an attempt.
SELECT id AS job_id, NULL::int AS number, store, tenant, priority, state, deaths, size_bytes AS carried_bytes, false AS carries
FROM job
WHERE step = 'pending' AND not_before IS NULL AND store = ANY(%(blocked)s::text[]) AND /*: abort_ignores_breaker :*/
  AND tenant <> ALL(%(held_tenants)s::text[])
ORDER BY priority, id LIMIT %(most)s
