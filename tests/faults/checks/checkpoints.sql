-- No checkpoint without the slice: before the checkpoint the store has received these very bytes in this session (or has
-- acknowledged them: a false acknowledgement is the store's fault), or had the slice when it was started again.
SELECT c.job_id, format('slice %s was checkpointed in epoch %s, and the store had not received it', c.number, s.epoch) AS what
FROM history.slice_change c
JOIN history.session s ON s.job_id = c.job_id AND s.epoch = (c.token >> 32)::int + 1
WHERE c.state = 'done'
  AND NOT EXISTS (SELECT FROM history.send t
                  WHERE t.session = s.session AND t.number = c.number AND t.at <= c.at AND (t.effect = 0 OR t.false_ack)
                    AND (t.due IS NULL OR t.sha1 = t.due))
  AND NOT EXISTS (SELECT FROM history.held h
                  WHERE h.session = s.session AND h.offset_bytes = c.number * s.slice_bytes::bigint AND h.at <= c.at)
UNION ALL
SELECT c.job_id, format('slice %s was checkpointed in epoch %s, which had no session', c.number, (c.token >> 32)::int + 1)
FROM history.slice_change c
WHERE c.state = 'done'
  AND NOT EXISTS (SELECT FROM history.session s WHERE s.job_id = c.job_id AND s.epoch = (c.token >> 32)::int + 1)
