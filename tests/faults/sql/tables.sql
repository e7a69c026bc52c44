-- The tables that the checker loads beside the database's own: the clients' operations, the store's requests, the store's contents.
DROP TABLE IF EXISTS history.operation, history.note, history.request, history.store_event, history.held, history.source_slice,
  history.object, history.open_session, history.allowed, history.secret;
CREATE TABLE history.operation (
  client text, op text, began float8, ended float8, outcome text, status int, job uuid, state text, session text, tenant text,
  key text, overwrite boolean, idempotency_key text, path text, sha1 text, size bigint);
CREATE TABLE history.note (at float8, what text, name text, path text, sha1 text, size bigint);
-- requests that carry bytes or change something: `effect` is what the store did, `status` and `code` what it answered
CREATE TABLE history.request (
  id bigint GENERATED ALWAYS AS IDENTITY, began float8, at float8, op text, path text, session text, offset_bytes bigint,
  size bigint, sha1 text, status int, code int, effect int, faults text[]);
-- opened, aborted, expired, lost, published, replaced, deleted
CREATE TABLE history.store_event (
  at float8, what text, path text, session text, size bigint, slice_size int, mark text, sha1 text, how text);
-- the slices that an unfinished upload had when the store was started
CREATE TABLE history.held (at float8, session text, offset_bytes bigint, size bigint);
CREATE TABLE history.source_slice (sha1 text, slice_bytes int, number int, slice_sha1 text);
CREATE TABLE history.object (key text, sha1 text);
CREATE TABLE history.open_session (key text, session text);
CREATE TABLE history.allowed (kind text, was text, event text, state text);
CREATE TABLE history.secret (secret text);
