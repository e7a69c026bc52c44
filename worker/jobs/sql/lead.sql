-- Lead, or go on leading; a term ends when it is not renewed. An optimisation: two leaders at once do no harm.
INSERT INTO leadership AS l (name, holder, term, until)
VALUES ('dispatcher', %(holder)s, 1, now() + make_interval(secs => %(lead_s)s))
ON CONFLICT (name) DO UPDATE SET
  holder = excluded.holder, until = excluded.until,
  term = l.term + (l.holder <> excluded.holder)::int
WHERE l.holder = excluded.holder OR l.until < now()
RETURNING term
