-- Derived from the loaded tables: each job's sessions, claims, submit and sources.
DROP TABLE IF EXISTS history.session, history.claim, history.submit, history.job_source, history.only_source, history.send,
  history.resend;
CREATE INDEX IF NOT EXISTS operation_of ON history.operation (job);
CREATE INDEX IF NOT EXISTS job_change_of ON history.job_change (job_id, id);
ANALYZE history.job_change, history.slice_change, history.request, history.operation;

CREATE TABLE history.session AS
SELECT DISTINCT job_id, epoch, session, slice_bytes FROM history.job_change WHERE session IS NOT NULL;

-- A claim lasts until its slice leaves `sending`: to `done` (a checkpoint), back to `pending`, or away (NULL, a new epoch).
-- Tokens of a later epoch begin at a higher power: the epoch can be read from them.
CREATE TABLE history.claim AS
SELECT job_id, number, (token >> 32)::int + 1 AS epoch, token, worker, id, at, ended_id, ended_at, became, before, before_token
FROM (SELECT *, lead(id) OVER w AS ended_id, lead(at) OVER w AS ended_at, lead(state) OVER w AS became,
             lag(state) OVER w AS before, lag(token) OVER w AS before_token
      FROM history.slice_change WINDOW w AS (PARTITION BY job_id, number ORDER BY id)) AS changes
WHERE state = 'sending';
CREATE INDEX ON history.claim (job_id, number);
ANALYZE history.session, history.claim;

-- The job that each accepted or unanswered submit has made, if it is known.
CREATE TABLE history.submit AS
SELECT a.*, coalesce(a.job, k.id, l.id) AS made
FROM history.operation a
LEFT JOIN job k ON a.job IS NULL AND a.outcome = 'unknown' AND k.tenant = a.tenant AND k.idempotency_key = a.idempotency_key
LEFT JOIN LATERAL (
  SELECT min(id::text)::uuid AS id FROM job j WHERE a.job IS NULL AND a.outcome = 'unknown' AND a.idempotency_key IS NULL
    AND j.tenant = a.tenant AND j.key = a.key AND j.idempotency_key IS NULL
    AND NOT EXISTS (SELECT FROM history.operation o WHERE o.op = 'submit' AND o.job = j.id)
) l ON true
WHERE a.op = 'submit';
CREATE TABLE history.job_source AS
SELECT DISTINCT made AS job_id, path, sha1, size FROM history.submit WHERE made IS NOT NULL AND outcome <> 'refused'
UNION
SELECT s.made, n.path, n.sha1, n.size FROM history.submit s JOIN history.note n ON n.what = 'changed' AND n.path = s.path
WHERE s.made IS NOT NULL AND s.outcome <> 'refused';
CREATE TABLE history.only_source AS
SELECT job_id, min(sha1) AS sha1 FROM history.job_source GROUP BY job_id HAVING count(DISTINCT sha1) = 1;
ANALYZE history.submit, history.job_source, history.only_source;
