-- The profiles of these stores have changed: what waits for an unusable one is probed at once.
UPDATE breaker SET probe_at = now() WHERE store = ANY(%(stores)s::text[]) AND probe_at > now() RETURNING store
