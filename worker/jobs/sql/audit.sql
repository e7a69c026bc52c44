-- Who did what, in the transaction that did it.
INSERT INTO audit (actor, key_id, key_name, tenant, person, action, what, reason, changed, refused)
VALUES (%(actor)s, %(key_id)s, %(key_name)s, %(tenant)s, %(person)s, %(action)s, %(what)s::jsonb, %(reason)s, %(changed)s, %(refused)s)
