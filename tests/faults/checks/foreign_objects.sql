-- Only a job with `overwrite` replaces an object of another client. No object is ever deleted.
SELECT (SELECT min(j.id::text)::uuid FROM job j WHERE j.key = p.key) AS job_id,
       format('the foreign object %s is %s instead of %s', p.key, coalesce(o.sha1, 'not there'), p.sha1) AS what
FROM (SELECT DISTINCT ON (key) key, sha1, began FROM history.operation WHERE op = 'plant_object' AND outcome = 'ok' ORDER BY key, began DESC) p
LEFT JOIN history.object o ON o.key = p.key
WHERE o.sha1 IS DISTINCT FROM p.sha1
  AND NOT EXISTS (SELECT FROM job j WHERE j.key = p.key AND j.overwrite AND j.started_at IS NOT NULL
                                      AND extract(epoch FROM coalesce(j.finished_at, now())) > p.began)
UNION ALL
SELECT (SELECT min(j.id::text)::uuid FROM job j WHERE j.key = e.path), format('the object %s was deleted', e.path)
FROM history.store_event e WHERE e.what = 'deleted'
UNION ALL
SELECT (SELECT min(j.id::text)::uuid FROM job j WHERE j.key = e.path), format('the object %s was replaced, and no job there may', e.path)
FROM history.store_event e
WHERE e.what = 'replaced'
  AND NOT EXISTS (SELECT FROM job j WHERE j.key = e.path AND j.overwrite AND extract(epoch FROM j.created_at) <= e.at)
  AND NOT EXISTS (SELECT FROM history.operation p WHERE p.op = 'plant_object' AND p.key = e.path AND p.outcome <> 'refused'
                                              AND e.at BETWEEN p.began AND coalesce(p.ended, 'infinity'))
