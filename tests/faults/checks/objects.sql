-- A success is the source's bytes at the key: those of the last job that succeeded there, or of a later one that replaced them and
-- could not say so before it ended otherwise.
WITH last AS (
  SELECT DISTINCT ON (target) id, key, target, finished_at FROM job WHERE state = 'succeeded' ORDER BY target, finished_at DESC, id DESC
)
SELECT l.id AS job_id,
       format('succeeded, but the object at %s is %s instead of %s', l.key, coalesce(o.sha1, 'not there'),
              (SELECT string_agg(sha1, ' or ') FROM history.job_source s WHERE s.job_id = l.id)) AS what
FROM last l LEFT JOIN history.object o ON o.key = l.key
WHERE NOT EXISTS (
  SELECT FROM history.job_source s WHERE s.sha1 = o.sha1 AND (
    s.job_id = l.id OR EXISTS (SELECT FROM job later WHERE later.id = s.job_id AND later.target = l.target AND later.overwrite
                                                     AND later.state <> 'succeeded' AND later.finished_at > l.finished_at)))
