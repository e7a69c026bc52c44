-- The store is unusable: its jobs wait. The reason is the latest; since when stays.
INSERT INTO breaker AS b (store, error, probe_at) VALUES (%(store)s, %(error)s::jsonb, now() + make_interval(secs => %(probe_s)s))
ON CONFLICT (store) DO UPDATE SET error = excluded.error, probe_at = greatest(b.probe_at, excluded.probe_at)
RETURNING opened_at = now() AS opened
