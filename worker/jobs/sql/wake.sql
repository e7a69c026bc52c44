-- What waited until now is due. SKIP LOCKED: a row that another transaction moves is left to the next tick. No statement
-- here waits for a lock, so the order of the locks does not matter.
WITH steps AS (
  UPDATE job SET not_before = NULL WHERE id IN (
    SELECT id FROM job WHERE step = 'pending' AND not_before <= now() ORDER BY not_before LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED)
  RETURNING 1
), slices AS (
  UPDATE slice s SET not_before = NULL FROM (
    SELECT job_id, number FROM slice WHERE state = 'pending' AND not_before <= now() ORDER BY not_before LIMIT 1000
    FOR NO KEY UPDATE SKIP LOCKED) d
  WHERE s.job_id = d.job_id AND s.number = d.number
  RETURNING 1
), aborts AS (  -- a cancelled job whose last claim has ended; an abandoned one ends without an abort
  UPDATE job SET step = 'pending' WHERE id IN (
    SELECT j.id FROM job j WHERE j.state = 'cancelling' AND j.step = 'idle' AND j.abandoned_at IS NULL
      AND NOT EXISTS (SELECT FROM slice s WHERE s.job_id = j.id AND s.state = 'sending')
    FOR NO KEY UPDATE SKIP LOCKED)
  RETURNING 1
), strays AS (  -- dispatched in the moment in which their job was cancelled, paused or failed: no worker can claim them
  UPDATE slice s SET state = 'pending' FROM (
    SELECT job_id, number FROM slice o
    WHERE state = 'dispatched'  -- the job by its key: an index of all that upload would be read whole for each slice
      AND (SELECT /*: slices_may_start :*/ FROM job j WHERE j.id = o.job_id) IS NOT TRUE
    LIMIT 10 FOR NO KEY UPDATE SKIP LOCKED) d
  WHERE s.job_id = d.job_id AND s.number = d.number
)
SELECT (SELECT count(*) FROM steps) AS steps, (SELECT count(*) FROM slices) AS slices, (SELECT count(*) FROM aborts) AS aborts
