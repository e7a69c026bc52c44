-- How many jobs of the same store and tenant go before a job, no further than `most`: the more urgent ones, and of its own
-- priority the older ones, of those states that do not come after its own.
SELECT (SELECT count(*) FROM (
    SELECT FROM job
    WHERE /*: due_step :*/ AND store = %(store)s AND tenant = %(tenant)s
      AND (priority, id) < (%(priority)s, %(job)s) AND (priority < %(priority)s OR state = ANY(%(states)s::text[]))
    LIMIT %(most)s) AS steps)
  + (SELECT count(*) FROM (
    SELECT FROM job j
    WHERE /*: slices_may_start :*/ AND store = %(store)s AND tenant = %(tenant)s AND id <> %(job)s
      AND (priority < %(priority)s OR priority = %(priority)s AND (%(slices_first)s OR id < %(job)s AND state = ANY(%(states)s::text[])))
      AND EXISTS (SELECT FROM slice s WHERE s.job_id = j.id AND s.state = 'pending' AND s.not_before IS NULL)
    LIMIT %(most)s) AS uploads) AS ahead
