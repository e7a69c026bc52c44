-- What the leader has found out of the links, for the selection and for whoever leads next.
INSERT INTO store_link AS l (store, goodput_bytes_per_s, answer_bytes, answer_s)
SELECT store, goodput_bytes_per_s, answer_bytes, answer_s
FROM json_to_recordset(%(links)s::json)
  AS a(store text, goodput_bytes_per_s float8, answer_bytes float8, answer_s float8)
ORDER BY store
ON CONFLICT (store) DO UPDATE SET goodput_bytes_per_s = excluded.goodput_bytes_per_s,
  answer_bytes = excluded.answer_bytes, answer_s = excluded.answer_s, measured_at = now()
