-- What a tick of the dispatcher needs to know, in one query: slots of live workers, what is in flight, stores that wait.
SELECT
  now() AS now,
  (SELECT coalesce(sum(slots), 0) FROM worker WHERE ended_at IS NULL) AS slots,
  (SELECT max(claimed_through) FROM worker WHERE claimed_through > now() - make_interval(hours => 1)) AS claimed_through,
  (SELECT max(ended_at) FROM worker WHERE ended_at IS NOT NULL) AS last_ended,
  EXISTS (SELECT FROM job j WHERE j.state = 'cancelling' AND j.step = 'idle' AND j.abandoned_at IS NULL
            AND NOT EXISTS (SELECT FROM slice s WHERE s.job_id = j.id AND s.state = 'sending')) AS abort_due,
  (SELECT extract(epoch FROM least(
     (SELECT min(not_before) FROM job WHERE step = 'pending' AND not_before IS NOT NULL),
     (SELECT min(not_before) FROM slice WHERE state = 'pending' AND not_before IS NOT NULL)) - now())::float8) AS next_due_s,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('store', store, 'due', probe_at <= now())), '[]') FROM breaker) AS breakers,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'name', name)), '[]') FROM hold) AS holds,
  (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'name', name, 'most', max_in_flight)), '[]') FROM cap) AS caps,
  (SELECT max(links_at) FROM worker WHERE ended_at IS NULL) AS links_at,
  (SELECT coalesce(jsonb_agg(l), '[]') FROM (
     SELECT store, goodput_bytes_per_s, answer_bytes, answer_s FROM store_link
     WHERE measured_at > now() - make_interval(secs => %(known_for_s)s)) l) AS links,
  -- an init may send a small file; one whose file is known to be larger only asks for a session
  (SELECT coalesce(jsonb_agg(f), '[]') FROM (
     SELECT j.store, j.tenant, sum(n)::int AS requests, sum(carrying)::int AS carrying
     FROM (SELECT job_id, count(*) AS n, count(*) AS carrying FROM slice WHERE state IN (/*: slices_in_flight :*/) GROUP BY job_id
           UNION ALL
           SELECT id, 1, (state IN ('queued', 'initializing') AND session IS NULL
                          AND coalesce(size_bytes, 0) <= %(whole_bytes)s)::int
           FROM job WHERE step IN ('dispatched', 'running')) i
     JOIN job j ON j.id = i.job_id
     GROUP BY j.store, j.tenant) f) AS in_flight
