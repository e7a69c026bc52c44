-- The processes of workers and APIs that run or ran a moment ago, and with which profiles.
SELECT p.role, p.name, p.stores, extract(epoch FROM now() - p.seen_at)::float8 AS silent_s
FROM (
  SELECT 'worker' AS role, name, stores, heartbeat_at AS seen_at FROM worker WHERE ended_at IS NULL
  UNION ALL
  SELECT 'api', name, stores, seen_at FROM api_process WHERE seen_at > now() - make_interval(secs => %(forget_s)s)
) AS p
ORDER BY p.role, p.name
