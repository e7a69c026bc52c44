-- How many bytes a second of a job were acknowledged lately. What was sent of a slice counts evenly from its claim to its
-- checkpoint; of what is being sent, from its begin to the report. Slices are dispatched by number: those done lately are
-- among the last before the highest one in flight, and no more of them are read than `most_slices`.
WITH parts AS MATERIALIZED (
  SELECT s.size_bytes::bigint AS bytes, s.claimed_at AS began_at, s.done_at AS ended_at, NULL::timestamptz AS reported_at
  FROM (
    SELECT coalesce(
      (SELECT max(number) FROM slice WHERE job_id = %(job)s AND state IN (/*: slices_in_flight :*/)),
      (SELECT min(number) FROM slice WHERE job_id = %(job)s AND state = 'pending' AND not_before IS NULL),
      (SELECT slices_total FROM job WHERE id = %(job)s)) AS number OFFSET 0
  ) AS last
  JOIN slice s ON s.job_id = %(job)s AND s.number BETWEEN last.number - %(most_slices)s AND last.number
  WHERE s.state = 'done' AND s.done_at > s.claimed_at  -- what the store had already was never sent
  UNION ALL
  SELECT r.bytes, w.heartbeat_at - make_interval(secs => r.for_s), w.heartbeat_at, w.heartbeat_at
  FROM (
    SELECT worker, number, token FROM slice WHERE job_id = %(job)s AND state = 'sending'
    UNION ALL
    SELECT worker, NULL, token FROM job WHERE id = %(job)s AND state = 'initializing' AND step = 'running'
  ) AS c
  JOIN worker w ON w.id = c.worker
  CROSS JOIN LATERAL jsonb_to_recordset(w.sending) AS r(job uuid, number int, token bigint, bytes bigint, for_s float8)
  WHERE r.job = %(job)s AND r.number IS NOT DISTINCT FROM c.number AND r.token = c.token AND r.for_s > 0
), span AS (
  -- it ends with the latest report, unless that is overdue: nothing is known of the time since
  SELECT ends_at, greatest(ends_at - make_interval(secs => %(window_s)s), begins_at) AS begins_at
  FROM (
    SELECT CASE WHEN max(reported_at) IS NULL THEN now()
                ELSE greatest(max(reported_at), now() - make_interval(secs => %(overdue_s)s)) END AS ends_at,
           min(began_at) AS begins_at
    FROM parts
  ) AS known
)
SELECT coalesce(sum(p.bytes * extract(epoch FROM least(p.ended_at, s.ends_at) - greatest(p.began_at, s.begins_at))
                    / extract(epoch FROM p.ended_at - p.began_at)), 0)
       / greatest(extract(epoch FROM max(s.ends_at) - max(s.begins_at)), 1) AS bytes_per_s
FROM span s LEFT JOIN parts p ON p.began_at < s.ends_at AND p.ended_at > s.begins_at
