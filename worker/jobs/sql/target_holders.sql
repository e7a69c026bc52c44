-- The live jobs that hold these targets.
SELECT id, tenant, target
FROM job
WHERE target = ANY(%(targets)s) AND state IN ('queued', 'initializing', 'uploading', 'finishing', 'cancelling')
