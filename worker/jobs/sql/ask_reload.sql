-- Ask every process to read its stores file again. It hears of it with its next heartbeat, or when it starts.
UPDATE stores_reload SET generation = generation + 1, version = %(version)s, asked_at = now() RETURNING generation
