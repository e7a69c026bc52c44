INSERT INTO worker (id, name, slots, roots) VALUES (%(id)s, %(name)s, %(slots)s, %(roots)s)
