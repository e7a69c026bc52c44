-- Triggers that record, for the recovery times, when a slice or step was dispatched, claimed and freed, and the worker.
CREATE TABLE claim_log (
  id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(), what text NOT NULL,
  job_id uuid NOT NULL, number int NOT NULL, token bigint NOT NULL, worker uuid);

CREATE FUNCTION log_slice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO claim_log (what, job_id, number, token, worker)
  VALUES (CASE NEW.state WHEN 'sending' THEN 'claimed' WHEN 'dispatched' THEN 'dispatched' ELSE 'freed' END,
          NEW.job_id, NEW.number, NEW.token, coalesce(NEW.worker, OLD.worker));
  RETURN NULL;
END $$;

CREATE FUNCTION log_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO claim_log (what, job_id, number, token, worker)
  VALUES (CASE NEW.step WHEN 'running' THEN 'claimed' WHEN 'dispatched' THEN 'dispatched' ELSE 'freed' END,
          NEW.id, -1, NEW.token, coalesce(NEW.worker, OLD.worker));
  RETURN NULL;
END $$;

CREATE TRIGGER claims AFTER UPDATE ON slice FOR EACH ROW
  WHEN (NEW.state <> OLD.state AND (NEW.state IN ('dispatched', 'sending') OR OLD.state = 'sending' AND NEW.state = 'pending'))
  EXECUTE FUNCTION log_slice();
CREATE TRIGGER claims AFTER UPDATE ON job FOR EACH ROW
  WHEN (NEW.step <> OLD.step AND (NEW.step IN ('dispatched', 'running') OR OLD.step = 'running' AND NEW.step = 'pending'))
  EXECUTE FUNCTION log_step();
