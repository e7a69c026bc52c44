-- The store's journal, sorted into tables; requests that only read are left out.
INSERT INTO history.request (began, at, op, path, session, offset_bytes, size, sha1, status, code, effect, faults)
SELECT r.* FROM history.journal j, jsonb_to_record(j.line) AS r(
  began float8, at float8, op text, path text, session text, "offset" bigint, size bigint, sha1 text, status int, code int, effect int,
  faults text[])
WHERE j.line->>'what' = 'request' AND j.line->>'op' IN ('init', 'data', 'slice', 'finish', 'upload', 'delete');

INSERT INTO history.store_event (at, what, path, session, size, slice_size, mark, sha1, how)
SELECT r.* FROM history.journal j, jsonb_to_record(j.line) AS r(
  at float8, what text, path text, session text, size bigint, slice_size int, mark text, sha1 text, how text)
WHERE j.line->>'what' IN ('opened', 'aborted', 'expired', 'lost', 'published', 'replaced', 'deleted');

INSERT INTO history.held (at, session, offset_bytes, size)
SELECT (j.line->>'at')::float8, j.line->>'session', (s->>0)::bigint, (s->>1)::bigint
FROM history.journal j, jsonb_array_elements(j.line->'slices') AS s
WHERE j.line->>'what' = 'held';

DROP TABLE history.journal;
