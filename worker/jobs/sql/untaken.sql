-- Whether workers take what is dispatched: how many live, how long ago the oldest of it was that none has taken (NULL: there is
-- none), and whether anything is at work.
SELECT
  (SELECT count(*) FROM worker WHERE ended_at IS NULL AND heartbeat_at > now() - interval '1 min') AS live,
  extract(epoch FROM now() - least(
    (SELECT min(dispatched_at) FROM job WHERE step = 'dispatched'),
    (SELECT min(dispatched_at) FROM slice WHERE state = 'dispatched')))::float8 AS untaken_s,
  EXISTS (SELECT FROM job WHERE step = 'running') OR EXISTS (SELECT FROM slice WHERE state = 'sending') AS at_work
