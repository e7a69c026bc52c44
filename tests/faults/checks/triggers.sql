-- The violations that the triggers of the acceptance tests have recorded during the run.
SELECT job_id, what FROM wrong_move
