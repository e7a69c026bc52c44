-- Written by triggers while the system runs, read by the invariants: what must never happen to a row, whatever process writes it.
CREATE TABLE wrong_move (id bigint GENERATED ALWAYS AS IDENTITY, job_id uuid, what text);
CREATE TABLE retired (job_id uuid, number int, token bigint, PRIMARY KEY (job_id, number));
CREATE TABLE allowed (kind text, source text, target text);

CREATE FUNCTION audit_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.token < OLD.token OR NEW.epoch < OLD.epoch OR NEW.run < OLD.run THEN
    INSERT INTO wrong_move (job_id, what) VALUES (NEW.id, format('job: token %s -> %s, epoch %s -> %s, run %s -> %s',
      OLD.token, NEW.token, OLD.epoch, NEW.epoch, OLD.run, NEW.run));
  END IF;
  IF NEW.state <> OLD.state
     AND NOT EXISTS (SELECT FROM allowed WHERE kind = 'job' AND source = OLD.state AND target = NEW.state) THEN
    INSERT INTO wrong_move (job_id, what) VALUES (NEW.id, format('job: %s -> %s', OLD.state, NEW.state));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION audit_slice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO retired VALUES (OLD.job_id, OLD.number, OLD.token)
    ON CONFLICT (job_id, number) DO UPDATE SET token = greatest(retired.token, excluded.token);
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO wrong_move (job_id, what) SELECT NEW.job_id, format('slice %s: planned anew with token %s after %s', NEW.number, NEW.token, r.token)
    FROM retired r WHERE r.job_id = NEW.job_id AND r.number = NEW.number AND r.token > NEW.token;
  ELSE
    IF NEW.token < OLD.token THEN
      INSERT INTO wrong_move (job_id, what) VALUES (NEW.job_id, format('slice %s: token %s -> %s', NEW.number, OLD.token, NEW.token));
    END IF;
    IF NEW.state <> OLD.state
       AND NOT EXISTS (SELECT FROM allowed WHERE kind = 'slice' AND source = OLD.state AND target = NEW.state) THEN
      INSERT INTO wrong_move (job_id, what) VALUES (NEW.job_id, format('slice %s: %s -> %s', NEW.number, OLD.state, NEW.state));
    END IF;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER audit AFTER UPDATE ON job FOR EACH ROW EXECUTE FUNCTION audit_job();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON slice FOR EACH ROW EXECUTE FUNCTION audit_slice();
