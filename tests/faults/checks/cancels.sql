-- Who was told that a job is cancelled is believed: nothing of it is claimed later, and it ends cancelled, or succeeded if that had
-- happened before; unless somebody asks to retry it.
WITH told AS (
  SELECT a.job, min(a.ended) AS ended FROM history.ask a
  WHERE a.op = 'cancel' AND a.outcome = 'ok'
    AND NOT EXISTS (SELECT FROM history.ask r WHERE r.op = 'retry' AND r.job = a.job AND r.outcome <> 'refused')
  GROUP BY a.job
)
SELECT t.job AS job_id, 'was said to be cancelled and ended as ' || j.state AS what
FROM told t JOIN job j ON j.id = t.job WHERE j.state NOT IN ('cancelled', 'cancelling', 'succeeded')
UNION ALL
SELECT c.job_id, format('slice %s was claimed %s ms after the cancel was answered', c.number, ((c.at - t.ended) * 1000)::int)
FROM told t JOIN history.claim c ON c.job_id = t.job WHERE c.at > t.ended
