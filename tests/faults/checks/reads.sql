-- The reads of a client are consistent: a job that it knows exists, a success is final, and a failed or cancelled job continues only
-- after a retry.
SELECT r.job AS job_id, format('%s read 404 after it was accepted', r.client) AS what
FROM history.operation r JOIN history.submit s ON s.job = r.job AND s.outcome = 'ok' AND s.ended < r.began
WHERE r.op = 'read' AND r.status = 404
UNION ALL
SELECT l.job, format('%s read %s after it had read succeeded', l.client, l.state)
FROM (SELECT job, client, min(ended) AS ended FROM history.operation WHERE op = 'read' AND state = 'succeeded' GROUP BY job, client) e
JOIN history.operation l ON l.op = 'read' AND l.job = e.job AND l.client = e.client AND l.began > e.ended
WHERE l.outcome = 'ok' AND l.state <> 'succeeded'
UNION ALL
SELECT l.job, format('%s read %s after it had read %s, without a retry', l.client, l.state, e.state)
FROM (SELECT job, client, state, min(ended) AS ended FROM history.operation
      WHERE op = 'read' AND state IN ('failed', 'cancelled') GROUP BY job, client, state) e
JOIN history.operation l ON l.op = 'read' AND l.job = e.job AND l.client = e.client AND l.began > e.ended
WHERE l.outcome = 'ok' AND l.state <> e.state
  AND NOT EXISTS (SELECT FROM history.operation r WHERE r.op = 'retry' AND r.job = l.job AND r.outcome <> 'refused' AND r.began < l.ended)
