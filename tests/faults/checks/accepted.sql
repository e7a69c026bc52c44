-- Every accepted job is in the database and has ended; so has every other job.
SELECT s.job AS job_id, 'was accepted and is not in the database' AS what
FROM history.submit s WHERE s.outcome = 'ok' AND NOT EXISTS (SELECT FROM job j WHERE j.id = s.job)
UNION ALL
SELECT s.job, 'was accepted, and its key is ' || j.key || ' instead of ' || s.key
FROM history.submit s JOIN job j ON j.id = s.job WHERE s.outcome = 'ok' AND j.key <> s.key
UNION ALL
SELECT id, 'is still ' || state || ', step ' || step FROM job WHERE state NOT IN ('succeeded', 'failed', 'cancelled')
