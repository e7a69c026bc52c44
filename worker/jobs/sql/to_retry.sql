-- The jobs of a retry, locked, with what its decision needs: a later job that has put its object at the same target, and whether
-- a live job holds it. Both are as they were before this statement waited for a lock.
SELECT job.id, job.tenant, job.state, job.epoch, job.paused_at, job.session IS NOT NULL AS has_session, job.error, job.source,
  job.store, job.key, job.target, newer.id AS superseded_by, newer.tenant AS superseded_by_tenant,
  EXISTS (SELECT FROM job o WHERE o.target = job.target AND o.finished_at IS NULL AND o.id <> job.id) AS key_busy
FROM /*: jobs_of_a_command :*/ LEFT JOIN LATERAL (
  SELECT o.id, o.tenant FROM job o WHERE o.target = job.target AND o.state = 'succeeded' AND o.id > job.id
  ORDER BY o.id DESC LIMIT 1
) AS newer ON true
ORDER BY job.target, job.id
