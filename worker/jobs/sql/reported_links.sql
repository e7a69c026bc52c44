-- What live workers have reported of the links to the stores.
SELECT id, links FROM worker WHERE ended_at IS NULL AND links IS NOT NULL
