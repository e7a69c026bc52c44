UPDATE worker SET ended_at = now(), "end" = 'stopped' WHERE id = %(id)s AND ended_at IS NULL
