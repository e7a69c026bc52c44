-- So many steps and slices a store or a tenant may have in flight at once. Setting the same again changes nothing: since when, why and by
-- whom stay those of the first.
INSERT INTO cap AS c (kind, name, max_in_flight, reason, actor, key_name, person)
VALUES (%(kind)s, %(name)s, %(most)s, %(reason)s, %(actor)s, %(key_name)s, %(person)s)
ON CONFLICT (kind, name) DO UPDATE SET max_in_flight = excluded.max_in_flight, reason = excluded.reason, actor = excluded.actor,
  key_name = excluded.key_name, person = excluded.person, at = now()
WHERE c.max_in_flight <> excluded.max_in_flight
RETURNING at
