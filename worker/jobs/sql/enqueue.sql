-- New jobs, as many as collide with nothing: neither an idempotency key of the tenant nor a live job on the target, nor, where
-- the same statement is sent once more because its answer was lost, themselves.
-- In the order of their targets, so that two batches that collide wait for each other instead of locking each other out (of two
-- jobs of one batch for a target the first is made); no
-- order serves both indexes, so a tenant's batches with idempotency keys go one after the other. The dispatcher is woken.
WITH asked AS (
  SELECT (j ->> 0)::uuid AS id, j ->> 1 AS tenant, (j ->> 2)::smallint AS priority, j -> 3 AS source, j ->> 4 AS store,
         j ->> 5 AS key, j ->> 6 AS target, (j ->> 7)::boolean AS overwrite, j ->> 8 AS attributes, j -> 9 AS labels,
         j ->> 10 AS verify, (j ->> 11)::int AS slice_size, (j ->> 12)::int AS retry_for_s, j ->> 13 AS idempotency_key,
         decode(j ->> 14, 'hex') AS request_digest, j ->> 15 AS traceparent
  FROM jsonb_array_elements(%(jobs)s::jsonb) AS j
  ORDER BY target, id
), turn AS MATERIALIZED (
  SELECT pg_advisory_xact_lock(hashtextextended(tenant, 7536914303))  -- any number of our own
  FROM (SELECT tenant FROM asked WHERE idempotency_key IS NOT NULL GROUP BY tenant HAVING count(*) > 1 ORDER BY tenant) t
), made AS (
  INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, attributes, labels, verify,
                   slice_size, retry_for_s, idempotency_key, request_digest, traceparent)
  SELECT id, tenant, 'queued', 'pending', priority, source, store, key, target, overwrite, attributes, labels, verify,
         slice_size, retry_for_s, idempotency_key, request_digest, traceparent
  FROM asked, (SELECT count(*) FROM turn) AS is_ours
  ON CONFLICT DO NOTHING
  RETURNING id, epoch
), history AS (
  INSERT INTO event (job_id, kind, to_state, epoch, actor)
  SELECT id, 'enqueued', 'queued', epoch, %(actor)s FROM made
)
SELECT (SELECT pg_notify('sliceway_work', '') FROM made LIMIT 1),
       CASE WHEN (SELECT count(*) FROM made) = (SELECT count(*) FROM asked) THEN '{}'
            ELSE ARRAY(SELECT id FROM asked EXCEPT SELECT id FROM made) END AS lost
