-- The live jobs that hold these targets.
SELECT id, tenant, target
FROM job
WHERE target = ANY(%(targets)s) AND finished_at IS NULL
