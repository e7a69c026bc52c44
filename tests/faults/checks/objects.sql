-- After a success the source's bytes are at the key: those of the last job that succeeded there, or of a later one that replaced
-- them and failed or was cancelled before it could record it. However a job ends, each object that it publishes is one of its sources as
-- a whole. The object at its key in the end is from a job for the key, or from another client.
WITH last AS (
  SELECT DISTINCT ON (target) id, key, target, finished_at FROM job WHERE state = 'succeeded' ORDER BY target, finished_at DESC, id DESC
), later AS (
  SELECT l.id, j.id AS job_id FROM last l JOIN job j ON j.target = l.target
  WHERE j.overwrite AND j.state <> 'succeeded' AND j.finished_at > l.finished_at
), may AS (
  SELECT l.id, s.sha1 FROM last l JOIN history.job_source s ON s.job_id = l.id
  UNION
  SELECT l.id, s.sha1 FROM later l JOIN history.job_source s ON s.job_id = l.job_id
)
SELECT l.id AS job_id,
       format('succeeded, but the object at %s is %s instead of %s', l.key, coalesce(o.sha1, 'not there'),
              (SELECT string_agg(m.sha1, ' or ') FROM may m WHERE m.id = l.id)) AS what
FROM last l LEFT JOIN history.object o ON o.key = l.key
WHERE (l.id, o.sha1) NOT IN (SELECT id, sha1 FROM may) OR o.sha1 IS NULL
UNION ALL
SELECT p.job_id, format('published %s at %s, and it is none of its sources', p.sha1, p.path)
FROM (
  SELECT s.job_id, e.path, e.sha1 FROM history.store_event e JOIN history.session s ON s.session = e.session
  WHERE e.what = 'published' AND e.session <> ''
  UNION ALL
  SELECT j.id, e.path, e.sha1 FROM history.store_event e JOIN job j ON j.id::text = split_part(e.mark, '/', 2)
  WHERE e.what = 'published' AND e.mark LIKE 'sliceway/%/%'
) p
WHERE p.sha1 <> '' AND EXISTS (SELECT FROM history.job_source s WHERE s.job_id = p.job_id)
  AND NOT EXISTS (SELECT FROM history.job_source s WHERE s.job_id = p.job_id AND s.sha1 = p.sha1)
UNION ALL
SELECT (SELECT min(j.id::text)::uuid FROM job j WHERE j.key = o.key), format('the object at %s is %s, which no client has put there', o.key, o.sha1)
FROM history.object o
WHERE o.sha1 IS NOT NULL AND EXISTS (SELECT FROM job j JOIN history.job_source s ON s.job_id = j.id WHERE j.key = o.key)
  AND NOT EXISTS (SELECT FROM job j JOIN history.job_source s ON s.job_id = j.id WHERE j.key = o.key AND s.sha1 = o.sha1)
  AND NOT EXISTS (SELECT FROM history.operation p WHERE p.op = 'plant_object' AND p.key = o.key AND p.sha1 = o.sha1)
