-- The jobs that were made under these idempotency keys.
SELECT id, tenant, state, store, key, idempotency_key, request_digest
FROM job
WHERE tenant = %(tenant)s AND idempotency_key = ANY(%(keys)s) AND idempotency_key IS NOT NULL
