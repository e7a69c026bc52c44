-- What the triggers of the acceptance tests have found while it happened.
SELECT job_id, what FROM audit
