-- No secret is in a row.
SELECT t.job_id, format('a secret is in its %s', t.place) AS what
FROM (
  SELECT job_id, 'event ' || kind AS place, concat_ws(' ', actor, cause) AS text FROM event
  UNION ALL
  SELECT id, 'row', concat_ws(' ', error, result, source, session, attributes, labels, pause_reason) FROM job
  UNION ALL
  SELECT job_id, 'slice ' || number, concat_ws(' ', error, tag) FROM slice
  UNION ALL
  SELECT NULL, 'breaker of ' || store, error::text FROM breaker
) t JOIN history.secret s ON strpos(t.text, s.secret) > 0
