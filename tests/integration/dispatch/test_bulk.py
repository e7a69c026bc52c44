"""Bulk actions with real leaders: each job once, and none left out, whatever ends a leader's connection or term."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from tests.integration.dispatch.harness import eventually
from worker.db.pool import connect
from worker.jobs import bulk, bulk_spans
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.bulk import Confirmed
from worker.jobs.bulk_rows import Action
from worker.jobs.commands import Acting
from worker.jobs.filters import parse
from worker.maintenance.bulk import BulkActions
from worker.runtime.bootsteps import Engine
from worker.runtime.long_duties import APPLICATION

if TYPE_CHECKING:
    from tests.integration.dispatch.harness import DispatcherHarness

JOBS = 300
CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND application_name = %s"""
ACTING = Acting(ApiKey(uuid4(), "ops", "ops", frozenset({Scope.ADMIN}), datetime.now(UTC)))


def confirm(harness: DispatcherHarness, query: str = "store=main", action: Action = Action.PRIORITY) -> UUID:
    """Confirm an action on all jobs of now."""
    options = {"priority": 1} if action is Action.PRIORITY else {}
    with harness.db.transaction() as tx:
        [row] = tx.execute("SELECT clock_timestamp() AS now").fetchall()
        which = bulk.fixed(parse(query), row["now"])
        made: UUID = bulk.begin(tx, Confirmed(action, which, options, JOBS), ACTING).id
    return made


def row(harness: DispatcherHarness, action: UUID) -> dict[str, Any]:
    return harness.db.run("SELECT * FROM bulk_action WHERE id = %s", action)[0]


def changes(harness: DispatcherHarness) -> list[int]:
    """How often each job was given another priority."""
    counted = (
        "SELECT count(event.id) AS times FROM job LEFT JOIN event ON event.job_id = job.id"
        " AND event.cause ->> 'bulk_action' IS NOT NULL GROUP BY job.id"
    )
    return [found["times"] for found in harness.db.run(counted)]


def done(harness: DispatcherHarness, action: UUID) -> dict[str, Any]:
    eventually(lambda: row(harness, action)["state"] == "done", "it is not done")
    return row(harness, action)


@pytest.fixture
def jobs(harness: DispatcherHarness) -> list[UUID]:
    return [harness.db.enqueue() for _ in range(JOBS)]


def duty(harness: DispatcherHarness, *, batch: int = 7) -> BulkActions:
    made = BulkActions(harness.settings())
    made._jobs = batch
    return made


def test_the_worker_has_the_duty() -> None:
    assert BulkActions in Engine.long_duties


@pytest.mark.usefixtures("jobs")
def test_a_leader_takes_each_job_once(harness: DispatcherHarness) -> None:
    action = confirm(harness)
    later = harness.db.enqueue()
    harness.leading(duties=[duty(harness)])
    found = done(harness, action)
    assert (found["done"], found["changed"], found["refused"]) == (JOBS, JOBS, 0)
    assert sorted(changes(harness)) == [0] + [1] * JOBS
    assert harness.db.row(later)["priority"] == 5
    entries = harness.db.run("SELECT action, changed FROM audit ORDER BY id")
    assert [(each["action"], each["changed"]) for each in entries] == [
        ("jobs.priority", 0), ("jobs.priority.done", JOBS),
    ]  # fmt: skip


@pytest.mark.usefixtures("jobs")
def test_two_leaders_at_once_take_each_job_once(harness: DispatcherHarness) -> None:
    action = confirm(harness)
    began = threading.Barrier(2)

    def lead() -> None:
        with connect(harness.url) as tx:
            began.wait()
            own = duty(harness)
            while bulk.running(tx):
                own.run(tx, lambda: True)

    threads = [threading.Thread(target=lead) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = done(harness, action)
    assert (found["done"], changes(harness)) == (JOBS, [1] * JOBS)


@pytest.mark.usefixtures("jobs")
def test_a_cut_connection_repeats_nothing_and_leaves_nothing_out(harness: DispatcherHarness) -> None:
    action = confirm(harness)
    harness.leading(duties=[duty(harness, batch=3)])
    cuts = 0
    while row(harness, action)["state"] == "running":
        before = row(harness, action)["done"]
        cuts += len(harness.db.run(CUT, APPLICATION))
        eventually(lambda b=before: (now := row(harness, action))["done"] > b or now["state"] == "done", "it stands")
    found = done(harness, action)
    assert cuts > 0
    assert (found["done"], changes(harness)) == (JOBS, [1] * JOBS)


def test_the_next_leader_goes_on_at_the_cursor(harness: DispatcherHarness, jobs: list[UUID]) -> None:
    action = confirm(harness)
    with harness.db.connection() as tx:
        checks = iter([True, True, True])
        duty(harness, batch=10).run(tx, lambda: next(checks, False))
    cursor = row(harness, action)["cursor"]
    assert row(harness, action)["done"] == 10 + 20 + 40  # a fast batch is followed by a larger one
    assert cursor == jobs[-70]
    harness.db.run("UPDATE event SET kind = 'before' WHERE cause ->> 'bulk_action' IS NOT NULL")
    harness.leading(duties=[duty(harness)])
    assert done(harness, action)["done"] == JOBS
    assert changes(harness) == [1] * JOBS


def test_a_batch_that_fails_leaves_no_trace(harness: DispatcherHarness, jobs: list[UUID]) -> None:
    action = confirm(harness)
    harness.db.run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;")
    harness.db.run("CREATE TRIGGER refuse BEFORE UPDATE ON bulk_action FOR EACH ROW EXECUTE FUNCTION refuse()")
    with harness.db.connection() as tx, pytest.raises(Exception, match="no"):
        duty(harness).run(tx, lambda: True)
    assert changes(harness) == [0] * JOBS
    harness.db.run("DROP TRIGGER refuse ON bulk_action")
    harness.leading(duties=[duty(harness)])
    assert done(harness, action)["done"] == len(jobs)
    assert changes(harness) == [1] * JOBS


def test_few_that_match_among_many_are_found_in_short_spans(
    harness: DispatcherHarness, jobs: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_spans, "SPAN_JOBS", 50)
    wanted = [jobs[0], jobs[149], jobs[150], jobs[299]]
    harness.db.run("""UPDATE job SET labels = '{"order": "17 %%"}' WHERE id = ANY(%s)""", wanted)
    action = confirm(harness, "label.order=17+%25&since=1h")
    with harness.db.connection() as tx:
        duty(harness, batch=2).run(tx, lambda: True)
    assert (row(harness, action)["state"], row(harness, action)["done"]) == ("done", 4)
    assert {job for job in jobs if harness.db.row(job)["priority"] == 1} == set(wanted)


def test_jobs_are_found_by_the_code_with_which_they_are_shown(harness: DispatcherHarness, jobs: list[UUID]) -> None:
    error = """'{"code": "source_gone", "message": "gone"}'"""
    harness.db.run(f"UPDATE job SET error = {error} WHERE id = %s", jobs[17])  # noqa: S608 - our own
    action = confirm(harness, "error_code=source_gone")
    with harness.db.connection() as tx:
        duty(harness).run(tx, lambda: True)
    assert row(harness, action)["done"] == 1
    assert harness.db.row(jobs[17])["priority"] == 1
