-- A job finishes once: an epoch publishes one object, one epoch of a job publishes (unless a client retries it), a job succeeds once.
-- An upload in one request may be repeated with the same bytes.
WITH ours AS (
  SELECT s.job_id, s.epoch, e.at, e.how, e.sha1 FROM history.store_event e JOIN history.session s ON s.session = e.session
  WHERE e.what = 'published' AND e.session <> ''
  UNION ALL
  SELECT j.id, split_part(e.mark, '/', 3)::int, e.at, e.how, e.sha1
  FROM history.store_event e JOIN job j ON j.id::text = split_part(e.mark, '/', 2)
  WHERE e.what = 'published' AND e.session = '' AND e.mark LIKE 'sliceway/%/%'
)
SELECT job_id, format('epoch %s was finished %s times', epoch, count(*)) AS what
FROM ours WHERE how = 'finish' GROUP BY job_id, epoch HAVING count(*) > 1
UNION ALL
SELECT job_id, format('epoch %s put %s different objects', epoch, count(DISTINCT sha1))
FROM ours WHERE how <> 'finish' GROUP BY job_id, epoch HAVING count(DISTINCT sha1) > 1
UNION ALL
SELECT o.job_id, format('published in epochs %s, without a retry', string_agg(DISTINCT o.epoch::text, ' and '))
FROM ours o WHERE NOT EXISTS (SELECT FROM event v WHERE v.job_id = o.job_id AND v.kind = 'retried')
GROUP BY o.job_id HAVING count(DISTINCT o.epoch) > 1
UNION ALL
SELECT job_id, format('succeeded %s times', count(*)) FROM history.job_change WHERE state = 'succeeded' AND was <> 'succeeded'
GROUP BY job_id HAVING count(*) > 1
UNION ALL
SELECT job_id, format('its history has %s successes', count(*)) FROM event WHERE to_state = 'succeeded'
GROUP BY job_id HAVING count(*) > 1
