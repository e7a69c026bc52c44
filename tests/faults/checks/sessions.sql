-- No session is left open at the store but those of other clients, those of failed jobs (a retry continues them), and those that the
-- job reports as left open. Only keys of the run's jobs are checked.
SELECT j.id AS job_id, format('the session %s at %s was left open, and no job reports it', left(o.session, 12), o.key) AS what
FROM history.open_session o
JOIN LATERAL (SELECT id FROM job WHERE job.key = o.key ORDER BY id DESC LIMIT 1) j ON true
WHERE NOT EXISTS (SELECT FROM history.operation p WHERE p.op = 'plant_upload' AND p.session = o.session)
  AND NOT EXISTS (SELECT FROM job f WHERE f.key = o.key AND (f.state = 'failed' OR f.result ? 'session_left_open'))
  AND NOT EXISTS (SELECT FROM event v JOIN job k ON k.id = v.job_id WHERE k.key = o.key AND v.kind = 'session_left_open')
