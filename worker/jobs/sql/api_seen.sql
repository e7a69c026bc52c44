-- An API process says that it runs and with which profiles, and hears of the latest reload of the stores files that was asked for.
WITH forgotten AS (
  DELETE FROM api_process WHERE seen_at < now() - make_interval(days => 1) AND id <> %(id)s
)
INSERT INTO api_process AS a (id, name, stores) VALUES (%(id)s, %(name)s, %(profiles)s::jsonb)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), stores = excluded.stores
RETURNING (SELECT generation FROM stores_reload) AS generation, (SELECT key FROM stores_reload) AS key
