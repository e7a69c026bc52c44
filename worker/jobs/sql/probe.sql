-- One probe a minute goes out to a store that waits.
UPDATE breaker SET probe_at = now() + make_interval(secs => %(probe_s)s) WHERE store = ANY(%(stores)s::text[])
