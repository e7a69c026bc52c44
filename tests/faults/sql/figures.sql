-- The figures of a run: its size, what went wrong, and the cost in bytes.
SELECT
  (SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (SELECT state, count(*) AS n FROM job GROUP BY state) s) AS jobs,
  (SELECT count(*) FROM history.operation WHERE op = 'submit') AS submits,
  (SELECT count(*) FROM history.operation WHERE op = 'submit' AND outcome = 'unknown') AS submits_unanswered,
  (SELECT count(*) FROM history.operation WHERE op IN ('plant_object', 'plant_upload')) AS foreign_objects,
  (SELECT coalesce(jsonb_object_agg(name, n), '{}')
   FROM (SELECT name, count(*) AS n FROM history.note WHERE what = 'fault' GROUP BY name) f) AS faults,
  (SELECT count(*) FROM history.claim) AS claims,
  (SELECT count(*) FROM history.slice_change WHERE state = 'done') AS checkpoints,
  (SELECT count(*) FROM history.slice_change WHERE was = 'done' AND state = 'pending') AS checkpoints_undone,
  (SELECT count(*) FROM history.claim WHERE ended_id IS NOT NULL AND became IS DISTINCT FROM 'done') AS claims_lapsed,
  (SELECT count(*) FROM history.claim c JOIN worker w ON w.id = c.worker
   WHERE c.became IS DISTINCT FROM 'done' AND w."end" = 'dead') AS claims_of_the_dead,
  (SELECT count(*) FROM worker WHERE "end" = 'dead') AS workers_dead,
  (SELECT count(*) FROM event WHERE kind = 'session_lost') AS sessions_lost,
  (SELECT count(*) FROM event WHERE kind = 'session_left_open') AS sessions_left_open,
  (SELECT count(*) FROM event WHERE kind = 'foreign_session_discarded') AS foreign_sessions_discarded,
  (SELECT count(*) FROM event WHERE kind = 'retried') AS retries,
  (SELECT count(*) FROM job WHERE error->>'code' = 'quarantined') AS quarantined,
  (SELECT coalesce(sum(attempts + coalesce((result->'slices'->>'failed_attempts')::int, 0)), 0)::int FROM job)
    + (SELECT coalesce(sum(attempts), 0)::int FROM slice) AS attempts,
  (SELECT coalesce(sum(deaths + coalesce((result->'slices'->>'deaths')::int, 0)), 0)::int FROM job)
    + (SELECT coalesce(sum(deaths), 0)::int FROM slice) AS deaths,
  (SELECT count(*) FROM history.send) AS sends,
  (SELECT count(*) FROM history.send WHERE NOT held) AS sends_lapsed,
  (SELECT count(*) FROM history.send WHERE NOT known) AS sends_unclaimed,
  (SELECT count(*) FROM history.send WHERE false_ack) AS false_acks,
  (SELECT coalesce(sum(size), 0)::bigint FROM history.request WHERE op IN ('data', 'slice', 'upload')) AS bytes_sent,
  (SELECT coalesce(sum(size), 0)::bigint FROM history.request WHERE op IN ('data', 'slice', 'upload') AND effect IS DISTINCT FROM 0)
    AS bytes_not_stored,
  (SELECT coalesce(sum(size), 0)::bigint FROM history.resend) AS bytes_sent_twice,
  (SELECT coalesce(sum(size), 0)::bigint FROM history.resend WHERE NOT held) AS bytes_sent_twice_lapsed,
  (SELECT coalesce(jsonb_object_agg(w.name, n), '{}')
   FROM (SELECT first_worker, sum(size) AS n FROM history.resend GROUP BY first_worker) r
   JOIN worker w ON w.id = r.first_worker) AS bytes_sent_twice_by_worker,
  (SELECT count(*) FROM history.only_source o
   WHERE NOT EXISTS (SELECT FROM history.source_slice p WHERE p.sha1 = o.sha1)
     AND EXISTS (SELECT FROM history.session s WHERE s.job_id = o.job_id)) AS jobs_without_source
