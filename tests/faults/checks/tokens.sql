-- Tokens, epochs and runs only grow. Each claim of a slice has a greater token than the one before, and its checkpoint has the same.
SELECT job_id, format('token %s -> %s, epoch %s -> %s, run %s -> %s', old_token, token, old_epoch, epoch, old_run, run) AS what
FROM (SELECT *, lag(token) OVER w AS old_token, lag(epoch) OVER w AS old_epoch, lag(run) OVER w AS old_run
      FROM history.job_change WINDOW w AS (PARTITION BY job_id ORDER BY id)) AS changes
WHERE token < old_token OR epoch < old_epoch OR run < old_run
UNION ALL
SELECT job_id, format('slice %s: claimed with token %s after token %s', number, token, old_token)
FROM (SELECT *, lag(token) OVER (PARTITION BY job_id, number ORDER BY id) AS old_token FROM history.claim) AS claims
WHERE token <= old_token
UNION ALL
SELECT job_id, format('slice %s: checkpointed with token %s, claimed with %s', number, token, old_token)
FROM (SELECT *, lag(token) OVER w AS old_token, lag(state) OVER w AS old_state
      FROM history.slice_change WINDOW w AS (PARTITION BY job_id, number ORDER BY id)) AS changes
WHERE state = 'done' AND was = 'sending' AND (old_state IS DISTINCT FROM 'sending' OR token <> old_token)
