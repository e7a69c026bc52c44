-- What holds a live job back beside a time: its pause, and the breaker of its store.
SELECT j.paused_at, j.pause_reason, b.error, b.opened_at
FROM job j LEFT JOIN breaker b ON b.store = j.store
WHERE j.id = %(job)s AND j.finished_at IS NULL
