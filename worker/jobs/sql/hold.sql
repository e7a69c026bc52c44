-- What goes to a store, the jobs of a tenant, or the whole queue is held: the dispatcher dispatches none of it. Since when, why and by
-- whom stay those of the first.
INSERT INTO hold (kind, name, reason, actor, key_name, person)
VALUES (%(kind)s, %(name)s, %(reason)s, %(actor)s, %(key_name)s, %(person)s)
ON CONFLICT (kind, name) DO NOTHING
RETURNING at
