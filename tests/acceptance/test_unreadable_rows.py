"""A claim is granted and its answer cannot be read: it goes back as a counted attempt, and the job ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.store import SLICE_BYTES
from worker.jobs.retry import ATTEMPTS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job

Row = dict[str, Any]
SCALE = 0.05
#: Waits are short; what notices a death is as long as ever, and slices go one after the other.
SETTINGS = {
    "SLICEWAY_TIME_SCALE": str(SCALE),
    "SLICEWAY_HEARTBEAT_S": str(0.5 / SCALE),
    "SLICEWAY_DEAD_AFTER_S": str(10 / SCALE),
    "SLICEWAY_LEAD_S": str(2 / SCALE),
    "SLICEWAY_WINDOW": "1",
}
#: A time that Python has no date for, and a number that it refuses to read.
NO_DATE = "UPDATE job SET created_at = 'infinity' WHERE id = %(job)s"
NO_NUMBER = """UPDATE job SET session = session || jsonb_build_object('unread', ('1' || repeat('0', 5000))::numeric)
  WHERE id = %(job)s"""
READABLE = "UPDATE job SET created_at = now(), session = session - 'unread' WHERE id = %(job)s"
WAITS = """
  CREATE TABLE waits (job_id uuid);
  CREATE FUNCTION note_wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.not_before > now() THEN INSERT INTO waits VALUES ((to_jsonb(NEW) ->> TG_ARGV[0])::uuid); END IF; RETURN NULL;
  END $$;
  CREATE TRIGGER waits AFTER UPDATE ON job FOR EACH ROW EXECUTE FUNCTION note_wait('id');
  CREATE TRIGGER waits AFTER UPDATE ON slice FOR EACH ROW EXECUTE FUNCTION note_wait('job_id')"""


@pytest.fixture
def waits(site: Installation) -> Iterator[None]:
    """Write down each time that a row begins to wait."""
    site.sql(WAITS)
    yield
    site.sql("DROP TABLE waits; DROP FUNCTION note_wait CASCADE")


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("step", "harm"), [("init", NO_DATE), ("data", NO_NUMBER), ("finish", NO_DATE)])
def test_a_row_that_cannot_be_read_fails_its_job(site: Installation, step: str, harm: str) -> None:
    site.workers(0)
    key = site.fresh_key()
    let_go = site.store.hold("data", key, count=1, offset=SLICE_BYTES if step == "finish" else 0)
    job = site.enqueue(2 * SLICE_BYTES, key)
    if step == "init":
        site.sql(harm, job=job.id)
    [worker] = site.workers(1, **SETTINGS)
    if step != "init":
        site.store.held("data", key)
        site.sql(harm, job=job.id)
        let_go()
    try:
        site.until(lambda: read(job, "state")["state"] == "failed", "failed")
    finally:
        site.sql(READABLE, job=job.id)
    assert worker.alive
    assert job.row["error"]["code"] == "internal"
    assert counted(job, step) == ATTEMPTS_MAX
    assert site.sql("SELECT count(*) AS n FROM waits WHERE job_id = %(job)s", job=job.id)[0]["n"] == ATTEMPTS_MAX - 1
    job.act("retry")
    job.succeeds()
    site.workers(0)
    assert worker.text().count("task.broken") == ATTEMPTS_MAX
    worker.log.unlink()  # elsewhere nothing is to be broken


def test_a_failure_that_cannot_be_decided_on_fails_its_job(site: Installation) -> None:
    """Since when the job fails is beyond every date, so for how long is no time."""
    site.workers(0)
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=0, status=503, code=-196)
    job = site.enqueue(2 * SLICE_BYTES, key)
    [worker] = site.workers(1, **SETTINGS)
    left_alone = "slices_left = 1 AND failing_since IS NOT NULL AS left_alone"  # no progress ends the failure any more
    site.until(lambda: read(job, left_alone)["left_alone"], "nothing but the failure")
    site.sql("UPDATE job SET failing_since = 'infinity' WHERE id = %(job)s", job=job.id)
    site.until(lambda: read(job, "state")["state"] == "failed", "failed")
    assert read(job, "error")["error"]["code"] == "internal"
    assert (worker.alive, worker.text().count("task.unsettled")) == (True, ATTEMPTS_MAX)
    site.store.control.clear_rules()
    job.act("retry")
    job.succeeds()


def read(job: Job, columns: str) -> Row:
    """Read no more of the job than this."""
    [row] = job.site.sql(f"SELECT {columns} FROM job WHERE id = %(job)s", job=job.id)  # noqa: S608 - from above
    return row


def counted(job: Job, step: str) -> int:
    """How often the step was claimed; each was a counted attempt."""
    if step == "data":
        [row] = [row for row in job.slices if row["number"] == 1]
        assert row["attempts"] == row["sends"]
        return int(row["sends"])
    assert job.row["attempts"] == ATTEMPTS_MAX - 1  # the last one is the job's failure
    return job.kinds.count("init_claimed") if step == "init" else int(job.row["finish_claims"])
