-- The jobs that have these ids.
SELECT id, tenant, state, source, store, key, target, idempotency_key, request_digest
FROM job
WHERE id = ANY(%(ids)s)
