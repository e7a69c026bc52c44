"""The doctor's findings in the tables: workers, dispatcher, roots, and jobs that need an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker.config.profiles import Profiles, RootProfile
from worker.db.pool import Database
from worker.doctor.findings import Level
from worker.doctor.work import work
from worker.ids import new_id
from worker.jobs.states import STEPS, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = Profiles(stores={}, roots={name: RootProfile(name=name, path=Path("/srv") / name) for name in ("a", "b")})


class Tables:
    """Inserts rows like those of an installation, and runs the checks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self, statement: str, *params: object) -> None:
        with self._database.connection() as tx:
            tx.execute(statement.encode(), params)

    def worker(self, name: str, roots: list[str], silent_s: float = 0.0) -> None:
        self.run(
            "INSERT INTO worker (id, name, slots, roots, heartbeat_at)"
            " VALUES (gen_random_uuid(), %s, 4, %s, now() - make_interval(secs => %s))",
            name,
            roots,
            silent_s,
        )

    def lead(self, name: str, for_s: float = 60.0) -> None:
        self.run(
            "INSERT INTO leadership SELECT 'dispatcher', id, 1, now() + make_interval(secs => %s) FROM worker"
            " WHERE name = %s ON CONFLICT (name) DO UPDATE SET until = excluded.until",
            for_s,
            name,
        )

    def job(self, state: str, *, tenant: str = "acme", ago: str = "0 s", **columns: Any) -> None:
        ended = state in {"failed", "cancelled"}
        self.run(
            "INSERT INTO job (id, tenant, state, step, priority, finished_at, source, store, key, target, overwrite,"
            " verify, retry_for_s, error, result, failing_since, paused_at) VALUES (%s, %s, %s, %s, 5,"
            " CASE WHEN %s THEN now() END, '{}', 'main', 'k', gen_random_uuid(), false, 'auto', 60, %s, %s,"
            " now() - %s::interval, CASE WHEN %s THEN now() END)",
            columns.get("id", new_id()),
            tenant,
            state,
            STEPS[JobState(state)][0],
            ended,
            json.dumps(columns["error"]) if "error" in columns else None,
            json.dumps(columns["result"]) if "result" in columns else None,
            None if ended else ago,
            columns.get("paused", False),
        )

    def findings(self) -> dict[str, tuple[Level, str]]:
        with self._database.connection() as tx:
            return {each.check: (each.level, f"{each.text}; {each.advice}") for each in work(tx, 10.0, PROFILES)}


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    database = Database(database_url, pool_size=1)
    yield Tables(database)
    database.close()


def test_a_healthy_installation_has_few_findings(tables: Tables) -> None:
    assert set(tables.findings()) == {"workers"}
    tables.worker("host:1", ["a", "b"])
    tables.lead("host:1")
    found = tables.findings()
    assert found == {
        "workers": (Level.OK, "1 process running; "),
        "dispatcher": (Level.OK, "host:1 leads; "),
    }


def test_silent_workers_and_no_dispatcher(tables: Tables) -> None:
    tables.worker("host:1", ["a", "b"])
    tables.worker("host:2", ["a", "b"], silent_s=60)
    found = tables.findings()
    assert found["worker heartbeats"][0] is Level.FAILED
    assert "host:2 is silent for 60 s" in found["worker heartbeats"][1]
    assert found["dispatcher"][0] is Level.FAILED
    tables.lead("host:2")
    assert tables.findings()["dispatcher"][1].startswith("a worker that has just ended")
    tables.lead("host:2", for_s=-1)
    assert tables.findings()["dispatcher"][0] is Level.FAILED
    tables.worker("host:3", ["a", "b"], silent_s=90)
    assert "host:2 and 1 more are silent for 90 s" in tables.findings()["worker heartbeats"][1]


def test_roots_that_workers_lack(tables: Tables) -> None:
    tables.worker("host:1", ["a"])
    tables.worker("host:2", [])
    found = tables.findings()
    assert found["root a at the workers"][0] is Level.NOTE
    assert "1 of 2 workers cannot read it" in found["root a at the workers"][1]
    assert found["root b at the workers"][0] is Level.FAILED
    assert "no worker process can read it" in found["root b at the workers"][1]


def test_stores_that_are_unusable_and_jobs_that_wait(tables: Tables) -> None:
    error = {"code": "root_unavailable", "message": "m", "advice": "Mount it."}
    wrong = {"code": "store_unusable", "message": "the signature is refused", "advice": "Correct the profile."}
    tables.run("INSERT INTO breaker (store, error, probe_at) VALUES ('main', %s, now())", json.dumps(wrong))
    tables.job("queued", error=error, ago="10 minutes")
    tables.job("queued", error=error, ago="2 hours")
    found = tables.findings()
    level, text = found["store main at the workers"]
    assert (level, "the signature is refused; Correct the profile." in text) == (Level.FAILED, True)
    assert found["jobs that wait"] == (Level.NOTE, "2, root_unavailable, the first for 120 min; Mount it.")


def test_paused_jobs(tables: Tables) -> None:
    tables.job("queued", paused=True)
    level, text = tables.findings()["jobs that wait"]
    assert (level, text.startswith("1, paused"), "jobs retry" in text) == (Level.NOTE, True, True)


def test_quarantine_and_sessions_left_open_are_counted_for_a_week(tables: Tables) -> None:
    old = "01890000-0000-7000-8000-000000000000"
    for tenant in ("acme", "other"):
        tables.job("failed", tenant=tenant, error={"code": "quarantined"})
        tables.job("cancelled", tenant=tenant, result={"session_left_open": "why"})
    tables.job("failed", error={"code": "quarantined"}, id=old)
    tables.job("failed", error={"code": "source_gone"})
    found = tables.findings()
    assert found["jobs in quarantine"][1].startswith("2 in the last 7 days")
    assert found["sessions left open"][1].startswith("2 in the last 7 days")
    assert {found[check][0] for check in ("jobs in quarantine", "sessions left open")} == {Level.NOTE}


def test_links_are_shown_as_long_as_they_are_known(tables: Tables) -> None:
    for store, answer_s, age_s in (("fast", 0.2, 0), ("slow", 3.0, 0), ("old", 0.2, 601)):
        tables.run(
            "INSERT INTO store_link VALUES (%s, 12345678, 1000000, %s, now() - make_interval(secs => %s))",
            store,
            answer_s,
            age_s,
        )
    found = {name: each for name, each in tables.findings().items() if name.startswith("link")}
    slow = "12.3 MB/s, a slice takes 3 s: it counts as slow, and holds half of the slots at most; "
    assert found == {
        "link to store fast": (Level.OK, "12.3 MB/s, a slice takes 0.2 s; "),
        "link to store slow": (Level.OK, slow),
    }
