-- Init tells what it knows of the source, and how far it has hashed, where it takes long or is to be gone on with; extends
-- its own lease.
-- A job that was cancelled meanwhile says so: its init is to end and let go of the step, so that the abort can follow.
WITH held AS MATERIALIZED (
  SELECT id FROM (SELECT * FROM job WHERE id = %(job)s OFFSET 0 FOR NO KEY UPDATE) AS job
  WHERE /*: holds_step :*/
    AND state IN (/*: states_of_init :*/)
)
UPDATE job SET
  fingerprint = %(fingerprint)s::jsonb,
  size_bytes = %(size_bytes)s,
  hashing = %(hashing)s::jsonb,
  digests = %(digests)s::jsonb,
  existed = coalesce(%(existed)s, existed),
  lease_until = now() + make_interval(secs => %(lease_s)s),
  updated_at = now()
FROM held WHERE job.id = held.id
RETURNING state
