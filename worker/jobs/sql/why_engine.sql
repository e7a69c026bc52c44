-- What may keep all jobs from being dispatched, and which stores wait: for the answer to why a job waits.
SELECT
  (SELECT count(*) FROM worker WHERE ended_at IS NULL AND heartbeat_at > now() - make_interval(secs => %(dead_after_s)s)) AS workers,
  (SELECT max(heartbeat_at) FROM worker) AS heartbeat_at,
  (SELECT coalesce(jsonb_object_agg(root, n), '{}') FROM (
     SELECT root, count(*) AS n FROM worker CROSS JOIN unnest(roots) AS root
     WHERE ended_at IS NULL AND heartbeat_at > now() - make_interval(secs => %(dead_after_s)s) GROUP BY root) r) AS roots,
  (SELECT until FROM leadership WHERE name = 'dispatcher') AS leads_until,
  -- not `transaction_read_only`: this statement may run in a transaction that is to be so
  pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool AS read_only,
  (SELECT coalesce(jsonb_agg(b), '[]') FROM (SELECT store, error, opened_at, probe_at FROM breaker) b) AS breakers
