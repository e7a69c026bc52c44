-- An operator limits the store or the tenant no more.
DELETE FROM cap WHERE kind = %(kind)s AND name = %(name)s
RETURNING at
