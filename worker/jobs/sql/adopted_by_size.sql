-- Which jobs' sessions hold slices of which nothing but their size says that they are the file's: 0.1 took over uploads that were
-- begun without a digest. What takes them over now has seen the file's digest in the store's own list, and says so.
SELECT id FROM unnest((SELECT %(jobs)s::uuid[]), (SELECT %(epochs)s::int[])) AS a(id, epoch)
WHERE EXISTS (
  SELECT FROM event
  WHERE job_id = a.id AND event.epoch = a.epoch AND kind IN ('session_opened', 'all_slices_held')
    AND (cause ->> 'held')::int > 0 AND NOT cause ? 'held_by'
)
