-- How long ago the job's cancel was asked for, the last time.
SELECT coalesce(extract(epoch FROM now() - max(at)), 0)::float8 AS seconds
FROM event WHERE job_id = %(job)s AND kind = 'cancel_requested'
