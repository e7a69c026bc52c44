-- Triggers that record, for the checker, every change of a job's state, epoch, token, run or session, and every change of a slice
-- into or out of `sending` and `done`: two rows a slice without faults. One sequence numbers both tables: a claim locks its job's
-- row, so that within a job `id` is the order of the commits.
CREATE TABLE IF NOT EXISTS wrong_move (id bigint GENERATED ALWAYS AS IDENTITY, job_id uuid, what text);  -- the acceptance tests'
CREATE SCHEMA history;
CREATE SEQUENCE history.change;

CREATE TABLE history.job_change (
  id bigint NOT NULL DEFAULT nextval('history.change'), at float8 NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
  job_id uuid NOT NULL, was text, state text NOT NULL, epoch int NOT NULL, token bigint NOT NULL, run int NOT NULL,
  session text, slice_bytes int);
CREATE TABLE history.slice_change (
  id bigint NOT NULL DEFAULT nextval('history.change'), at float8 NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
  job_id uuid NOT NULL, number int NOT NULL, was text, state text, token bigint NOT NULL, worker uuid);

CREATE FUNCTION history.note_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO history.job_change (job_id, was, state, epoch, token, run, session, slice_bytes)
  VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.epoch, NEW.token, NEW.run,
          NEW.session->>'session', NEW.slice_bytes);
  RETURN NULL;
END $$;

CREATE FUNCTION history.note_slice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO history.slice_change (job_id, number, was, token, worker)
    VALUES (OLD.job_id, OLD.number, OLD.state, OLD.token, OLD.worker);
  ELSE
    INSERT INTO history.slice_change (job_id, number, was, state, token, worker)
    VALUES (NEW.job_id, NEW.number, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.token, NEW.worker);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER history_insert AFTER INSERT ON job FOR EACH ROW EXECUTE FUNCTION history.note_job();
CREATE TRIGGER history_update AFTER UPDATE ON job FOR EACH ROW
  WHEN (NEW.state <> OLD.state OR NEW.epoch <> OLD.epoch OR NEW.token <> OLD.token OR NEW.run <> OLD.run
        OR NEW.session IS DISTINCT FROM OLD.session)
  EXECUTE FUNCTION history.note_job();
CREATE TRIGGER history_insert AFTER INSERT ON slice FOR EACH ROW WHEN (NEW.state = 'done')
  EXECUTE FUNCTION history.note_slice();
CREATE TRIGGER history_update AFTER UPDATE ON slice FOR EACH ROW
  WHEN (NEW.state <> OLD.state AND (OLD.state IN ('sending', 'done') OR NEW.state IN ('sending', 'done')))
  EXECUTE FUNCTION history.note_slice();
CREATE TRIGGER history_delete AFTER DELETE ON slice FOR EACH ROW WHEN (OLD.state = 'sending')
  EXECUTE FUNCTION history.note_slice();
