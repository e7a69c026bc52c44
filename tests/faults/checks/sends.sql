-- Every sent slice has the source's own bytes, in the session of a claim that its sender had: a lapsed claim repeats bytes and has no
-- other effect. (A database that was stopped at once loses its last claims; their sends still count as claimed.)
SELECT s.job_id, format('slice %s was sent with other bytes than the source has there: %s instead of %s', s.number, s.sha1, s.due) AS what
FROM history.send s WHERE s.sha1 IS NOT NULL AND s.due IS NOT NULL AND s.sha1 <> s.due
UNION ALL
SELECT min(s.job_id::text)::uuid, format('slice %s was sent with %s different contents in one session', s.number, count(DISTINCT s.sha1))
FROM history.send s WHERE s.due IS NULL AND s.sha1 IS NOT NULL AND s.effect = 0
GROUP BY s.session, s.number HAVING count(DISTINCT s.sha1) > 1
UNION ALL
SELECT s.job_id, format('slice %s was sent in the session of epoch %s, and no worker had claimed it in that epoch', s.number, s.epoch)
FROM history.send s
WHERE NOT s.known
  AND NOT EXISTS (SELECT FROM history.send o WHERE o.id = s.id AND o.known)
  AND NOT EXISTS (SELECT FROM history.operation p WHERE p.op = 'plant_upload' AND p.session = s.session)
  AND NOT EXISTS (SELECT FROM history.note n WHERE n.name LIKE 'postgres%' AND n.at BETWEEN s.began - 30 AND s.at + 5)
UNION ALL
SELECT j.id, format('bytes at %s were sent in an unknown session: %s', r.offset_bytes, left(r.session, 12))
FROM history.request r JOIN job j ON j.key = r.path
WHERE r.op IN ('data', 'slice') AND r.session IS NOT NULL
  AND NOT EXISTS (SELECT FROM history.session s WHERE s.session = r.session)
  AND NOT EXISTS (SELECT FROM history.operation p WHERE p.op = 'plant_upload' AND p.session = r.session)
UNION ALL
SELECT t.job_id, format('slice %s was stored %s times in epoch %s, by %s claims', t.number, t.times, t.epoch, count(c.id))
FROM (SELECT job_id, number, epoch, min(began) AS began, count(*) AS times FROM history.send WHERE effect = 0
      GROUP BY job_id, number, epoch, session HAVING count(*) > 1) t
LEFT JOIN history.claim c USING (job_id, number, epoch)
WHERE NOT EXISTS (SELECT FROM history.note n WHERE n.name LIKE 'postgres%' AND n.at > t.began - 30)
GROUP BY t.job_id, t.number, t.epoch, t.times HAVING t.times > count(c.id)
