-- A checkpoint is final: no slice is claimed after it in its epoch (if the store has lost the slice, a recorded change makes it pending
-- first). Slices are claimed only of a job that uploads: not after a cancel was committed, nor in an older epoch.
SELECT c.job_id, format('slice %s was claimed with token %s after its checkpoint with token %s', c.number, c.token, c.before_token) AS what
FROM history.claim c WHERE c.before = 'done' AND c.before_token >> 32 = c.token >> 32
UNION ALL
SELECT c.job_id, format('slice %s was claimed in epoch %s with token %s while the job was %s in epoch %s', c.number, c.epoch, c.token,
                        coalesce(j.state, 'not there'), j.epoch)
FROM history.claim c
LEFT JOIN LATERAL (
  SELECT state, epoch FROM history.job_change j WHERE j.job_id = c.job_id AND j.id < c.id ORDER BY j.id DESC LIMIT 1
) j ON true
WHERE j.state IS DISTINCT FROM 'uploading' OR j.epoch <> c.epoch
