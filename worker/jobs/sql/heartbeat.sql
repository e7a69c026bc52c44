-- A worker that was taken for dead hears it here: no row.
UPDATE worker SET heartbeat_at = now(), slots = %(slots)s, roots = %(roots)s,
  claimed_through = greatest(claimed_through, %(claimed_through)s::timestamptz),
  links = coalesce(%(links)s::jsonb, links), links_at = CASE WHEN %(links)s::jsonb IS NULL THEN links_at ELSE now() END,
  sending = %(sending)s::jsonb, stores = %(profiles)s::jsonb
WHERE id = %(id)s AND ended_at IS NULL
-- the latest reload of the stores files that was asked for
RETURNING (SELECT generation FROM stores_reload) AS generation, (SELECT key FROM stores_reload) AS key
