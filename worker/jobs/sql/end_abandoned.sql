-- Abandoned jobs end without a request to their store, when no request of theirs can be under way any more: no claim is alive, and
-- the lease of each that may have ended without its request is over. Those are claims of lost workers, and the last claim
-- where it may have sent a finish or a whole file: the worker may have left that request before its answer. All of them were
-- made before the job was abandoned, so `finish_lease_s` or the lease of a slice after that nothing is under way.
-- A later retry by a release without this column leaves it, and voids it. SKIP LOCKED: the next turn sees to the rest.
WITH ending AS MATERIALIZED (
  SELECT j.id, j.epoch, j.session, j.target, CASE
    WHEN j.finish_claims > 0 THEN 'the job was abandoned after a finish was begun: its object may be at the key'
    WHEN j.session IS NULL THEN 'the job was abandoned after an init was begun: an upload or its object may be at the key'
    ELSE 'the job was abandoned: the store was not asked to discard the session' END AS reason
  FROM job j CROSS JOIN LATERAL (SELECT greatest(
    CASE WHEN j.finish_claims > 0 THEN %(finish_lease_s)s ELSE %(init_lease_s)s END,
    %(slack_s)s + coalesce(j.slice_bytes, 0) / %(low_speed)s::float8) AS seconds) AS lease
  WHERE j.state = 'cancelling' AND j.step <> 'running' AND j.abandoned_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM slice s WHERE s.job_id = j.id AND s.state = 'sending')
    AND NOT EXISTS (SELECT FROM event e WHERE e.job_id = j.id AND e.kind = 'retried' AND e.at > j.abandoned_at)
    AND (j.abandoned_at < now() - make_interval(secs => lease.seconds)
      OR j.finish_claims = 0 AND j.session IS NOT NULL AND NOT EXISTS (
        SELECT FROM event e WHERE e.job_id = j.id AND e.kind = 'worker_lost'
          AND e.at > j.abandoned_at - make_interval(secs => lease.seconds)))
  ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), moved AS (
  UPDATE job j SET state = 'cancelled', step = 'idle', /*: released :*/, not_before = NULL, failing_since = NULL, error = NULL,
    session = NULL, slices_left = NULL, sent_bytes = NULL, result = jsonb_build_object('session_left_open', e.reason),
    finished_at = now(), updated_at = now()
  FROM ending e WHERE j.id = e.id
  RETURNING j.id, j.epoch, e.session, e.target, e.reason
), cleared AS (
  DELETE FROM slice s USING moved m WHERE s.job_id = m.id
), history AS (
  INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor, cause)
  SELECT id, 'session_left_open', NULL, NULL, epoch, 'dispatcher',
    jsonb_build_object('reason', reason, 'session', session, 'target', target)
  FROM moved
  UNION ALL
  SELECT id, 'cancelled', 'cancelling', 'cancelled', epoch, 'dispatcher', NULL FROM moved
)
SELECT id FROM moved
