-- Each request with bytes of a slice: `due` is the digest of the source's range (NULL if the source has changed), `known` says that a
-- claim of the session's epoch had been made before, `held` that it lasted until the store's decision. `false_ack` is an
-- acknowledgement without the effect. A session that a second job has continued belongs to both.
CREATE TABLE history.send AS
WITH sent AS (
  SELECT r.id, s.job_id, s.epoch, s.session, s.slice_bytes, (r.offset_bytes / s.slice_bytes)::int AS number, r.began, r.at, r.size,
         r.sha1, r.effect,
         r.status = 200 AND coalesce(r.code, 0) = 0 AND r.effect IS DISTINCT FROM 0 AND r.faults <> '{}' AS false_ack
  FROM history.request r JOIN history.session s ON s.session = r.session
  WHERE r.op IN ('data', 'slice') AND r.offset_bytes IS NOT NULL AND s.slice_bytes > 0
), covered AS (
  SELECT t.id, t.job_id, t.epoch, bool_or(c.at <= t.began) AS known,
         bool_or(c.at <= t.began AND (c.ended_at IS NULL OR c.ended_at >= t.at)) AS held
  FROM sent t JOIN history.claim c ON c.job_id = t.job_id AND c.number = t.number AND c.epoch = t.epoch
  GROUP BY t.id, t.job_id, t.epoch
)
SELECT t.*, p.slice_sha1 AS due, coalesce(c.known, false) AS known, coalesce(c.held, false) AS held
FROM sent t
LEFT JOIN covered c ON c.id = t.id AND c.job_id = t.job_id AND c.epoch = t.epoch
LEFT JOIN history.only_source o ON o.job_id = t.job_id
LEFT JOIN history.source_slice p ON p.sha1 = o.sha1 AND p.slice_bytes = t.slice_bytes AND p.number = t.number;
CREATE INDEX ON history.send (session, number);
ANALYZE history.send;

-- Each slice that the store has received again, and the worker of the earlier claim: one that ended without a checkpoint.
CREATE TABLE history.resend AS
SELECT t.id, t.job_id, t.epoch, t.number, t.size, t.at, t.held, c.worker AS first_worker
FROM (SELECT *, row_number() OVER (PARTITION BY job_id, epoch, number ORDER BY at, id) AS nth FROM history.send WHERE effect = 0) t
LEFT JOIN LATERAL (
  SELECT worker FROM history.claim c
  WHERE c.job_id = t.job_id AND c.number = t.number AND c.epoch = t.epoch AND c.ended_at <= t.at AND c.became IS DISTINCT FROM 'done'
  ORDER BY c.id DESC LIMIT 1
) c ON true
WHERE t.nth > 1;
