-- At the end nothing is dispatched, claimed or waiting to be published, and a job that succeeded or was cancelled has no slices.
SELECT id AS job_id, 'its step is still ' || step AS what FROM job WHERE step <> 'idle'
UNION ALL
SELECT job_id, format('slice %s is still %s', number, state) FROM slice WHERE state IN ('dispatched', 'sending')
UNION ALL
SELECT id, 'has ended and still has the claim of worker ' || worker FROM job WHERE worker IS NOT NULL AND finished_at IS NOT NULL
UNION ALL
SELECT s.job_id, format('has %s, and %s of its slices are still in the table', j.state, count(*))
FROM slice s JOIN job j ON j.id = s.job_id WHERE j.state IN ('succeeded', 'cancelled') GROUP BY s.job_id, j.state
