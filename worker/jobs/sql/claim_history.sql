-- What the decision about a failed claim needs where the answer to the claim could not be read: counters and a code, and
-- nothing that a client could stumble over. Guard: the claim, as its message names it.
SELECT CASE WHEN %(number)s::int IS NULL THEN j.attempts ELSE s.attempts END AS attempts, j.session_losses, j.retry_for_s,
       jsonb_build_object('code', j.error ->> 'code') AS error, NULL::float8 AS failing_for_s
FROM job j LEFT JOIN slice s ON s.job_id = j.id AND s.number = %(number)s
WHERE j.id = %(job)s AND j.epoch = %(epoch)s
  AND CASE WHEN %(number)s::int IS NULL THEN j.step = 'running' AND j.token = %(token)s AND j.worker = %(worker)s
           ELSE s.state = 'sending' AND s.token = %(token)s AND s.worker = %(worker)s END
