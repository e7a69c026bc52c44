DELETE FROM api_process WHERE id = %(id)s
