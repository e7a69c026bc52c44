-- Every move is in the table of states. In the rows as in the event history each move starts in the state in which the one before
-- ended, and both end in the state of the job.
SELECT c.job_id, format('the job went from %s to %s', coalesce(c.was, 'nothing'), c.state) AS what
FROM history.job_change c WHERE c.was IS DISTINCT FROM c.state
  AND NOT EXISTS (SELECT FROM history.allowed a WHERE a.kind = 'job' AND a.was IS NOT DISTINCT FROM c.was AND a.state = c.state)
UNION ALL
SELECT c.job_id, format('slice %s went from %s to %s', c.number, c.was, c.state)
FROM history.slice_change c WHERE c.was IS NOT NULL AND c.state IS NOT NULL
  AND NOT EXISTS (SELECT FROM history.allowed a WHERE a.kind = 'slice' AND a.was = c.was AND a.state = c.state)
UNION ALL
SELECT job_id, format('the job left %s, but was %s', was, before)
FROM (SELECT job_id, was, lag(state) OVER (PARTITION BY job_id ORDER BY id) AS before FROM history.job_change) AS changes
WHERE was IS DISTINCT FROM before
UNION ALL
SELECT job_id, format('event %s from %s to %s', kind, coalesce(from_state, 'nothing'), to_state)
FROM event e WHERE to_state IS NOT NULL
  AND NOT EXISTS (SELECT FROM history.allowed a WHERE a.kind = 'job' AND a.was IS NOT DISTINCT FROM e.from_state
                                                  AND a.event = e.kind AND a.state = e.to_state)
UNION ALL
SELECT job_id, format('event %s from %s, but the one before led to %s', kind, from_state, coalesce(before, 'nothing'))
FROM (SELECT *, lag(to_state) OVER (PARTITION BY job_id ORDER BY id) AS before FROM event WHERE to_state IS NOT NULL) AS events
WHERE from_state IS DISTINCT FROM before
UNION ALL
SELECT job_id, format('event of epoch %s after one of epoch %s', epoch, before)
FROM (SELECT *, lag(epoch) OVER (PARTITION BY job_id ORDER BY id) AS before FROM event) AS events
WHERE epoch < before
UNION ALL
SELECT j.id, format('is %s, but its events end with %s and its changes with %s', j.state, coalesce(e.to_state, 'nothing'), coalesce(c.state, 'nothing'))
FROM job j
LEFT JOIN (SELECT DISTINCT ON (job_id) job_id, to_state FROM event WHERE to_state IS NOT NULL ORDER BY job_id, id DESC) e ON e.job_id = j.id
LEFT JOIN (SELECT DISTINCT ON (job_id) job_id, state FROM history.job_change ORDER BY job_id, id DESC) c ON c.job_id = j.id
WHERE j.state IS DISTINCT FROM e.to_state OR j.state IS DISTINCT FROM c.state
