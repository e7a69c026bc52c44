-- All live jobs, of a tenant or (NULL) of all, in groups by what decides why they wait: never a row a job. Slices are looked at for
-- jobs that upload only: those in flight and those that wait for a time once for all jobs, what is due by an index for each.
WITH flying AS MATERIALIZED (
  SELECT job_id, bool_or(state = 'sending') AS sending, min(dispatched_at) FILTER (WHERE state = 'dispatched') AS dispatched_at
  FROM slice WHERE state IN (/*: slices_in_flight :*/) GROUP BY job_id
), deferred AS MATERIALIZED (
  SELECT job_id, min(not_before) AS next_at FROM slice WHERE state = 'pending' AND not_before IS NOT NULL GROUP BY job_id
), live AS (
  SELECT tenant, store, state, step = 'running' AS step_running, false AS sending,
    CASE WHEN step = 'dispatched' THEN dispatched_at END AS dispatched_at, step = 'pending' AND not_before IS NULL AS due,
    not_before AS next_at, size_bytes AS carried_bytes, /*: step_carries :*/ AS carries,
    paused_at, pause_reason, failing_since, error, source, false AS ignores_breaker, false AS abandoned
  FROM job
  WHERE finished_at IS NULL AND state NOT IN ('uploading', 'cancelling') AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
  UNION ALL
  SELECT tenant, store, state, step = 'running', f.sending IS TRUE, CASE WHEN step = 'dispatched' THEN j.dispatched_at END,
    step = 'pending' AND not_before IS NULL, not_before, size_bytes, false, paused_at, pause_reason, failing_since, error, source,
    /*: abort_ignores_breaker :*/, abandoned_at IS NOT NULL
  FROM job j LEFT JOIN flying f ON f.job_id = j.id
  WHERE state = 'cancelling' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
  UNION ALL
  SELECT tenant, store, state, false, f.sending IS TRUE, f.dispatched_at, d.size_bytes IS NOT NULL,
    CASE WHEN d.size_bytes IS NULL THEN w.next_at END, d.size_bytes, true, paused_at, pause_reason, failing_since, error, source, false, false
  FROM job j
  LEFT JOIN flying f ON f.job_id = j.id
  LEFT JOIN deferred w ON w.job_id = j.id
  LEFT JOIN LATERAL (
    SELECT size_bytes FROM slice WHERE job_id = j.id AND state = 'pending' AND not_before IS NULL
    ORDER BY number LIMIT 1) AS d ON true
  WHERE finished_at IS NULL AND state = 'uploading' AND (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
)
SELECT store, state, step_running, sending, dispatched_at IS NOT NULL AS dispatched, paused_at IS NOT NULL AS paused, due,
  carries, ignores_breaker, CASE WHEN next_at > now() THEN error ->> 'code' END AS error_code,
  CASE WHEN next_at > now() AND error ->> 'code' = 'root_unavailable' THEN source ->> 'root' END AS root, next_at > now() AS later,
  coalesce(h.name, c.name) AS held_or_capped_tenant, abandoned,
  count(*) AS jobs, min(dispatched_at) AS dispatched_at, min(paused_at) AS paused_at, min(next_at) AS next_at,
  min(failing_since) AS failing_since, min(carried_bytes) AS carried_bytes,
  min(pause_reason) AS pause_reason, min(pause_reason) IS DISTINCT FROM max(pause_reason) AS pause_reasons_differ,
  min(error ->> 'message') FILTER (WHERE next_at > now()) AS message,
  min(error ->> 'message') FILTER (WHERE next_at > now())
    IS DISTINCT FROM max(error ->> 'message') FILTER (WHERE next_at > now()) AS messages_differ,
  min(error ->> 'advice') FILTER (WHERE next_at > now()) AS advice
FROM live LEFT JOIN hold h ON h.kind = 'tenant' AND h.name = live.tenant
  LEFT JOIN cap c ON c.kind = 'tenant' AND c.name = live.tenant
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
