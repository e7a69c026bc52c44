"""Live jobs that 0.1 let go on with an upload of unknown content begin afresh; all others stay as they are."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.migration.old_database import ADOPTED, build
from worker.db.migrate import migrate
from worker.db.pool import conninfo
from worker.jobs.states import Event, JobState, may

Row = dict[str, Any]
LEASE_S = 3600.0


class Old:
    """The database before the migration, and after it."""

    def __init__(self, url: str) -> None:
        self.url = url
        build(url, leases_end_in_s=LEASE_S)
        self.before = self.jobs()
        self.events_before = self.run("SELECT * FROM event ORDER BY id")
        self.slices_before = self.run("SELECT * FROM slice ORDER BY job_id, number")
        migrate(url)
        self.after = self.jobs()

    def run(self, statement: str, *params: object) -> list[Row]:
        with psycopg.connect(conninfo(self.url), row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def jobs(self) -> dict[str, Row]:
        return {row["key"]: row for row in self.run("SELECT * FROM job")}

    def news(self, key: str) -> list[Row]:
        """The events that the migration has written for a job."""
        last = self.events_before[-1]["id"]
        return self.run("SELECT * FROM event WHERE id > %s AND job_id = %s", last, self.before[key]["id"])


@pytest.fixture
def old(empty_database_url: str) -> Old:
    return Old(empty_database_url)


def test_the_rows_are_those_that_0_1_wrote_in_every_live_state(old: Old) -> None:
    assert {key: old.before[key]["state"] for key in ADOPTED} == {key: key for key in ADOPTED}
    assert old.before.keys() - set(ADOPTED) == {"own", "failed"}
    assert {old.before[key]["step"] for key in ADOPTED} == {"pending", "running", "idle"}


@pytest.mark.parametrize("key", ADOPTED)
def test_an_adopted_job_begins_a_new_epoch_without_the_session(old: Old, key: str) -> None:
    before, after = old.before[key], old.after[key]
    assert after["state"] == ("cancelling" if key == "cancelling" else "queued")
    assert (after["epoch"], after["step"], after["finished_at"]) == (before["epoch"] + 1, "pending", None)
    nothing = ("session", "worker", "lease_until", "slices_total", "slices_left", "existed")
    assert {name: after[name] for name in nothing} == dict.fromkeys(nothing)
    assert (after["bytes_done"], after["finish_claims"]) == (0, 0)
    # the same file goes on, and a worker of 0.1 that gets the init adopts nothing again
    assert after["fingerprint"] == before["fingerprint"] is not None
    assert after["digests"] == before["digests"] is not None
    assert after["session_losses"] == before["session_losses"] + 1
    assert old.run("SELECT * FROM slice WHERE job_id = %s", after["id"]) == []


@pytest.mark.parametrize("key", ADOPTED)
def test_the_history_says_why(old: Old, key: str) -> None:
    [news] = old.news(key)
    moved = key in {"initializing", "uploading", "finishing"}
    assert news["kind"] == ("session_left_open" if key == "cancelling" else "session_lost")
    assert (news["from_state"], news["to_state"]) == ((key, "queued") if moved else (None, None))
    assert not moved or may(JobState(key), Event(news["kind"]), JobState.QUEUED)
    assert news["epoch"] == old.after[key]["epoch"]
    assert "begins afresh" in news["cause"]["message"]
    assert old.after[key]["error"] == news["cause"]


def test_nothing_is_dispatched_before_the_last_claim_of_before_has_ended(old: Old) -> None:
    sending = {row["job_id"]: row["lease_until"] for row in old.slices_before if row["state"] == "sending"}
    held = {key: old.before[key]["lease_until"] or sending.get(old.before[key]["id"]) for key in ADOPTED}
    assert {key for key, until in held.items() if until} == set(ADOPTED) - {"queued"}
    assert {key: old.after[key]["not_before"] for key in ADOPTED} == held


@pytest.mark.parametrize("key", ["own", "failed"])
def test_other_jobs_stay_as_they_are(old: Old, key: str) -> None:
    came_since = ("sent_bytes", "traceparent", "abandoned_at")
    code = old.before[key]["error"]["code"] if key == "failed" else None
    assert old.after[key] == old.before[key] | dict.fromkeys(came_since) | {"failure_code": code}
    assert old.news(key) == []
    slices = [row for row in old.slices_before if row["job_id"] == old.before[key]["id"]]
    now = old.run("SELECT * FROM slice WHERE job_id = %s ORDER BY number", old.before[key]["id"])
    assert [row | {"sent_bytes": None} for row in slices] == now
    assert slices


def test_migrating_again_changes_nothing(old: Old) -> None:
    """Also where new workers have gone on with an upload since, and said by what."""
    job = old.after["queued"]["id"]
    cause = '{"held": 3, "held_by": "digest"}'
    old.run("UPDATE job SET session = '{}' WHERE id = %s", job)
    old.run(
        "INSERT INTO event (job_id, kind, epoch, actor, cause) VALUES (%s, 'session_opened', 2, 'w', %s)", job, cause
    )
    then = old.jobs()
    old.run("UPDATE alembic_version SET version_num = '0002'")
    migrate(old.url)
    assert old.jobs() == then
