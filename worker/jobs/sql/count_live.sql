-- How many live jobs a tenant has; no further than the quota, since more is not needed.
SELECT count(*) AS live FROM (
  SELECT FROM job
  WHERE tenant = %(tenant)s AND finished_at IS NULL
  LIMIT %(most)s
) AS counted
