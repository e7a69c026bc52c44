-- New jobs, as many as collide with nothing: neither an idempotency key of the tenant nor a live job on the target.
-- In the order of their targets, so that two batches that collide wait for each other instead of locking each other out; no
-- order serves both indexes, so a tenant's batches with idempotency keys go one after the other. The dispatcher is woken.
WITH asked AS (
  SELECT * FROM jsonb_to_recordset(%(jobs)s::jsonb) AS j(
    id uuid, tenant text, priority smallint, source jsonb, store text, key text, target text, overwrite boolean,
    attributes text, labels jsonb, verify text, slice_size int, retry_for_s int, idempotency_key text, request_digest text)
  ORDER BY target
), turn AS MATERIALIZED (
  SELECT pg_advisory_xact_lock(hashtextextended(tenant, 7536914303))  -- any number of our own
  FROM (SELECT tenant FROM asked WHERE idempotency_key IS NOT NULL GROUP BY tenant HAVING count(*) > 1 ORDER BY tenant) t
), made AS (
  INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, attributes, labels, verify,
                   slice_size, retry_for_s, idempotency_key, request_digest)
  SELECT id, tenant, 'queued', 'pending', priority, source, store, key, target, overwrite, attributes, labels, verify,
         slice_size, retry_for_s, idempotency_key, decode(request_digest, 'hex')
  FROM asked, (SELECT count(*) FROM turn) AS is_ours
  ON CONFLICT DO NOTHING
  RETURNING id, epoch
), told AS (
  INSERT INTO event (job_id, kind, to_state, epoch, actor)
  SELECT id, 'enqueued', 'queued', epoch, %(actor)s FROM made
)
SELECT (SELECT pg_notify('sliceway_work', '') FROM made LIMIT 1),
       CASE WHEN (SELECT count(*) FROM made) = (SELECT count(*) FROM asked) THEN '{}'
            ELSE ARRAY(SELECT id FROM asked EXCEPT SELECT id FROM made) END AS lost
