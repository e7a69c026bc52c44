-- One submit makes one job: a submit without an answer has made one job or none, an idempotency key names one job, and no job exists
-- that was refused or never submitted.
SELECT min(s.job::text)::uuid AS job_id,
       format('idempotency key %s named %s jobs: %s', s.idempotency_key, count(DISTINCT s.job), string_agg(DISTINCT s.job::text, ', ')) AS what
FROM history.submit s WHERE s.outcome = 'ok' AND s.idempotency_key IS NOT NULL
GROUP BY s.tenant, s.idempotency_key HAVING count(DISTINCT s.job) > 1
UNION ALL
SELECT min(j.id::text)::uuid, format('%s jobs have the idempotency key %s', count(*), j.idempotency_key)
FROM job j WHERE j.idempotency_key IS NOT NULL GROUP BY j.tenant, j.idempotency_key HAVING count(*) > 1
UNION ALL
SELECT j.id, format('no client knows it, and its idempotency key %s was never submitted, or was refused', j.idempotency_key)
FROM job j WHERE j.idempotency_key IS NOT NULL
  AND NOT EXISTS (SELECT FROM history.submit s WHERE s.tenant = j.tenant AND s.idempotency_key = j.idempotency_key AND s.outcome <> 'refused')
UNION ALL
SELECT min(j.id::text)::uuid, format('%s jobs for %s that no client knows, and %s submits without an answer', count(*), j.key,
                                     coalesce(min(u.unknown), 0))
FROM job j LEFT JOIN (
  SELECT tenant, key, count(*) AS unknown FROM history.submit WHERE outcome = 'unknown' AND idempotency_key IS NULL GROUP BY tenant, key
) u ON u.tenant = j.tenant AND u.key = j.key
WHERE j.idempotency_key IS NULL AND NOT EXISTS (SELECT FROM history.submit s WHERE s.job = j.id)
GROUP BY j.tenant, j.key HAVING count(*) > coalesce(min(u.unknown), 0)
