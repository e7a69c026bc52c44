-- Which of the claims named may not go on: their job was cancelled (an abort is what follows from that) or began a new
-- epoch, or the claim itself is no longer theirs.
SELECT a.job_id, a.number
FROM json_to_recordset(%(claims)s::json) AS a(job_id uuid, number int, token bigint, epoch int, abort bool)
LEFT JOIN job j ON j.id = a.job_id AND j.epoch = a.epoch
LEFT JOIN slice s ON s.job_id = a.job_id AND s.number = a.number
WHERE j.id IS NULL OR j.state = 'cancelling' AND NOT a.abort
   OR CASE WHEN a.number IS NULL THEN j.step <> 'running' OR j.token <> a.token OR j.worker IS DISTINCT FROM %(worker)s
           ELSE s.state IS DISTINCT FROM 'sending' OR s.token <> a.token OR s.worker IS DISTINCT FROM %(worker)s END
