-- A success is the source's bytes at the key: those of the last job that succeeded there, or of a later one that replaced them and
-- could not say so before it ended otherwise.
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
