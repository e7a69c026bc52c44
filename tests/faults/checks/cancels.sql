-- After the answer to a cancel nothing of the job is claimed, and it ends cancelled, or succeeded if it had succeeded before; unless
-- a client asks to retry it.
WITH cancelled AS (
  SELECT a.job, min(a.ended) AS ended FROM history.operation a
  WHERE a.op = 'cancel' AND a.outcome = 'ok'
    AND NOT EXISTS (SELECT FROM history.operation r WHERE r.op = 'retry' AND r.job = a.job AND r.outcome <> 'refused')
  GROUP BY a.job
)
SELECT t.job AS job_id, 'was reported as cancelled and ended as ' || j.state AS what
FROM cancelled t JOIN job j ON j.id = t.job WHERE j.state NOT IN ('cancelled', 'cancelling', 'succeeded')
UNION ALL
SELECT c.job_id, format('slice %s was claimed %s ms after the cancel was answered', c.number, ((c.at - t.ended) * 1000)::int)
FROM cancelled t JOIN history.claim c ON c.job_id = t.job WHERE c.at > t.ended
