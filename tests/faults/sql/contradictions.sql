-- Contradictions that the test plants, one at a time, into the history of a correct run. The comment above each names the invariant that
-- it violates and a part of the violation's text. `job(key)` and `session(key)` name the run's jobs and their sessions.

-- accepted: is not in the database
INSERT INTO history.operation (client, op, outcome, job, key) VALUES ('client', 'submit', 'ok', gen_random_uuid(), 'plain');
-- accepted: its key is plain instead of other
UPDATE history.operation SET key = 'other' WHERE op = 'submit' AND job = job('plain');
-- accepted: is still uploading
UPDATE job SET state = 'uploading', finished_at = NULL WHERE key = 'plain';

-- submits: named 2 jobs
UPDATE history.operation SET job = job('plain') WHERE ctid = (SELECT min(ctid) FROM history.operation WHERE idempotency_key = 'the-one');
-- submits: 2 jobs have the idempotency key
DROP INDEX uq_job_idempotency;
INSERT INTO job SELECT (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid()))).* FROM job j WHERE key = 'once';
-- submits: was never submitted, or was refused
UPDATE history.operation SET outcome = 'refused', job = NULL WHERE idempotency_key = 'the-one';
-- submits: 2 jobs for unheard
INSERT INTO job SELECT (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid()))).* FROM job j WHERE key = 'unheard';
-- submits: 1 jobs for plain
DELETE FROM history.operation WHERE op = 'submit' AND job = job('plain');

-- objects: the object at plain is other
UPDATE history.object SET sha1 = 'other' WHERE key = 'plain';
-- objects: the object at small is not there
UPDATE history.object SET sha1 = NULL WHERE key = 'small';
-- objects: published other at plain, and it is none of its sources
UPDATE history.store_event SET sha1 = 'other' WHERE what = 'published' AND session = session('plain');
-- objects: published other at small, and it is none of its sources
UPDATE history.store_event SET sha1 = 'other' WHERE what = 'published' AND mark LIKE 'sliceway/' || job('small') || '/%';
-- objects: published other at taken, and it is none of its sources
INSERT INTO history.store_event (at, what, how, path, session, mark, sha1)
VALUES (0, 'published', 'finish', 'taken', 'anothers', 'sliceway/' || job('taken') || '/1', 'other');
-- objects: the object at cancelled is other, which no client has put there
UPDATE history.object SET sha1 = 'other' WHERE key = 'cancelled';

-- checkpoints: slice 0 was checkpointed in epoch 1, and the store had not received it
DELETE FROM history.request WHERE op = 'data' AND session = session('plain') AND offset_bytes = 0;
-- checkpoints: slice 1 was checkpointed in epoch 1, and the store had not received it
UPDATE history.request SET effect = -197, status = 503 WHERE op = 'data' AND session = session('plain');
-- checkpoints: slice 2 was checkpointed in epoch 1, and the store had not received it
UPDATE history.request SET sha1 = 'other' WHERE op = 'data' AND session = session('plain');
-- checkpoints: slice 3 was checkpointed in epoch 1, and the store had not received it
UPDATE history.request SET at = at + 60 WHERE op = 'data' AND session = session('plain');
-- checkpoints: which had no session
UPDATE history.job_change SET session = NULL WHERE job_id = job('plain');

-- claims: after its checkpoint with token
INSERT INTO history.slice_change
SELECT id + 1000000, at, job_id, number, 'dispatched', 'sending', token + 1, worker
FROM history.slice_change WHERE job_id = job('plain') AND number = 0 AND state = 'done';
-- claims: while the job was cancelling
UPDATE history.slice_change SET id = (SELECT min(id) FROM history.job_change WHERE job_id = job('cancelled') AND state = 'cancelling')
WHERE job_id = job('cancelled') AND number = 0 AND state = 'sending';
UPDATE history.job_change SET id = id - 1 WHERE job_id = job('cancelled') AND state = 'cancelling';
-- claims: was claimed in epoch 1 with token
UPDATE history.slice_change SET token = token - (1::bigint << 32) WHERE job_id = job('lost') AND token >> 32 = 1;

-- cancels: was reported as cancelled and ended as failed
UPDATE job SET state = 'failed' WHERE key = 'cancelled';
-- cancels: ms after the cancel was answered
UPDATE history.slice_change SET at = at + 60 WHERE job_id = job('cancelled') AND state = 'sending';

-- sends: slice 0 was sent with other bytes than the source has there
UPDATE history.request SET sha1 = 'other' WHERE op = 'data' AND session = session('plain') AND offset_bytes = 0;
-- sends: was sent with 2 different contents in one session
INSERT INTO history.request (began, at, op, path, session, offset_bytes, size, sha1, status, code, effect, faults)
SELECT began, at, op, path, session, offset_bytes, size, 'other', status, code, effect, faults
FROM history.request WHERE op = 'data' AND session = session('plain');
DELETE FROM history.source_slice;
-- sends: in the session of epoch 1, and no worker had claimed it in that epoch
DELETE FROM history.slice_change WHERE job_id = job('plain') AND number = 0;
-- sends: slice 0 was sent in the session of epoch 1, and no worker had claimed it in that epoch
UPDATE history.request SET began = began - 600 WHERE op = 'data' AND session = session('plain');
-- sends: slice 0 was stored 2 times in epoch 1, by 1 claims
INSERT INTO history.request (began, at, op, path, session, offset_bytes, size, sha1, status, code, effect, faults)
SELECT began, at, op, path, session, offset_bytes, size, sha1, status, code, effect, faults
FROM history.request WHERE op = 'data' AND session = session('plain') AND offset_bytes = 0;
-- sends: bytes at 0 were sent in an unknown session
UPDATE history.request SET session = 'other' WHERE op = 'data' AND session = session('plain');

-- finishes: epoch 1 was finished 2 times
INSERT INTO history.store_event SELECT * FROM history.store_event WHERE what = 'published' AND path = 'plain';
-- finishes: epoch 1 put 2 different objects
INSERT INTO history.store_event (at, what, path, session, mark, how, sha1)
SELECT at, what, path, session, mark, how, 'other' FROM history.store_event WHERE what = 'published' AND path = 'small';
-- finishes: published in epochs 1 and 2
INSERT INTO history.store_event (at, what, path, session, how)
SELECT e.at, e.what, e.path, s.session, e.how
FROM history.store_event e JOIN history.session s ON s.job_id = job('lost') AND s.epoch = 1
WHERE e.what = 'published' AND e.path = 'lost';
-- finishes: succeeded 2 times
INSERT INTO history.job_change SELECT * FROM history.job_change WHERE state = 'succeeded' AND job_id = job('plain');
-- finishes: its history has 2 successes
INSERT INTO event (job_id, kind, from_state, to_state, epoch, actor)
SELECT job_id, kind, from_state, to_state, epoch, actor FROM event WHERE to_state = 'succeeded' AND job_id = job('plain');

-- tokens: token 9 ->
UPDATE history.job_change SET token = 9 WHERE state = 'initializing' AND job_id = job('plain');
-- tokens: epoch 9 ->
UPDATE history.job_change SET epoch = 9 WHERE state = 'initializing' AND job_id = job('plain');
-- tokens: run 9 ->
UPDATE history.job_change SET run = 9 WHERE state = 'initializing' AND job_id = job('plain');
-- tokens: slice 0: claimed with token 1 after token 1
UPDATE history.slice_change SET token = 1 WHERE job_id = job('lapsed') AND number = 0;
-- tokens: slice 0: checkpointed with token
UPDATE history.slice_change SET token = token + 1 WHERE job_id = job('plain') AND state = 'done';

-- moves: the job went from uploading to succeeded
UPDATE history.job_change SET was = 'uploading' WHERE state = 'succeeded' AND job_id = job('plain');
-- moves: slice 0 went from pending to sending
UPDATE history.slice_change SET was = 'pending' WHERE state = 'sending' AND job_id = job('plain');
-- moves: the job left finishing, but was uploading
DELETE FROM history.job_change WHERE state = 'finishing' AND job_id = job('plain');
-- moves: event proven from uploading to succeeded
UPDATE event SET from_state = 'uploading' WHERE kind = 'proven' AND job_id = job('plain');
-- moves: event proven from finishing, but the one before led to uploading
DELETE FROM event WHERE kind = 'slices_done' AND job_id = job('plain');
-- moves: event of epoch 1 after one of epoch 9
UPDATE event SET epoch = 9 WHERE kind = 'session_opened' AND job_id = job('plain');
-- moves: is failed, but its events end with succeeded and its changes with succeeded
UPDATE job SET state = 'failed' WHERE key = 'plain';

-- foreign_objects: the foreign object untouched is other
UPDATE history.object SET sha1 = 'other' WHERE key = 'untouched';
-- foreign_objects: the foreign object taken is not there
UPDATE history.object SET sha1 = NULL WHERE key = 'taken';
-- foreign_objects: the object untouched was deleted
INSERT INTO history.store_event (at, what, path, session) VALUES (0, 'deleted', 'untouched', '');
-- foreign_objects: the object plain was replaced, and no job there may
INSERT INTO history.store_event (at, what, path, session) VALUES (0, 'replaced', 'plain', '');

-- leftovers: its step is still pending
ALTER TABLE job DROP CONSTRAINT ck_job_step_of_state;
UPDATE job SET step = 'pending' WHERE key = 'taken';
-- leftovers: has ended and still has the claim of worker
UPDATE job SET worker = (SELECT min(id::text)::uuid FROM worker) WHERE key = 'taken';
-- leftovers: slice 0 is still sending
INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token) VALUES (job('taken'), 0, 0, 1, 'sending', 1);
-- leftovers: has succeeded, and 1 of its slices are still in the table
INSERT INTO slice (job_id, number, offset_bytes, size_bytes, state, token) VALUES (job('plain'), 0, 0, 1, 'done', 1);

-- sessions: the session 0123456789ab at plain was left open, and no job reports it
INSERT INTO history.open_session VALUES ('plain', '0123456789abcdef');

-- reads: read 404 after it was accepted
INSERT INTO history.operation (client, op, outcome, job, status, began) VALUES ('client', 'read', 'refused', job('plain'), 404, later());
-- reads: client read uploading after it had read succeeded
INSERT INTO history.operation (client, op, outcome, job, state, began) VALUES ('client', 'read', 'ok', job('plain'), 'uploading', later());
-- reads: client read queued after it had read cancelled, without a retry
INSERT INTO history.operation (client, op, outcome, job, state, began) VALUES ('client', 'read', 'ok', job('cancelled'), 'queued', later());

-- secrets: a secret is in its event enqueued
UPDATE event SET cause = jsonb_build_object('a', (SELECT secret FROM history.secret)) WHERE kind = 'enqueued' AND job_id = job('plain');
-- secrets: a secret is in its row
UPDATE job SET error = jsonb_build_object('a', (SELECT secret FROM history.secret)) WHERE key = 'taken';

-- triggers: planted
INSERT INTO wrong_move (job_id, what) VALUES (job('plain'), 'planted');
