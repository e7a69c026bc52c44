-- What holds a live job back beside a time: its pause, the breaker of its store, and holds of its store, its tenant and the queue.
WITH live AS MATERIALIZED (
  SELECT store, tenant, paused_at, pause_reason FROM job WHERE id = %(job)s AND finished_at IS NULL
)
SELECT 'job_paused' AS by, pause_reason AS reason, paused_at AS since FROM live WHERE paused_at IS NOT NULL
UNION ALL
SELECT 'store_unusable', b.error ->> 'message', b.opened_at FROM live j JOIN breaker b ON b.store = j.store
UNION ALL
SELECT h.kind || '_paused', h.reason, h.at FROM live j JOIN hold h ON /*: hold_covers :*/
