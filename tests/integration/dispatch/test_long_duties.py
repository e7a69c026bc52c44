"""Long duties run beside the leader's ticks, while the process leads, whatever befalls one of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.dispatch.harness import SOON_S, eventually
from worker.runtime.long_duties import APPLICATION, LongDuties

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.dispatch.harness import DispatcherHarness
    from worker.db.pool import Connection

LOCK = 7
"""Of the test's own: a duty waits for it inside a statement."""


@dataclass
class RecordedDuty:
    """A duty that records when it begins and ends, and does in between what the test needs."""

    work: Callable[[Connection, Callable[[], bool]], None]
    name: str = "recorded"
    every_s: float = 0.0
    events: list[str] = field(default_factory=list)

    def run(self, tx: Connection, still_leads: Callable[[], bool]) -> None:
        self.events.append("begins")
        self.work(tx, still_leads)
        self.events.append("ends")

    def wait_for(self, *events: str) -> None:
        """Wait until these are the first events."""
        eventually(lambda: self.events[: len(events)] == list(events), f"{events} do not come")


def until_the_lead_is_lost(_: Connection, still_leads: Callable[[], bool]) -> None:
    """Work in small pieces, and check before each."""
    eventually(lambda: not still_leads(), "it leads on")


def until_the_lock_is_free(tx: Connection, _: Callable[[], bool]) -> None:
    """Run a statement that takes as long as the test holds the lock."""
    tx.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def connections(harness: DispatcherHarness) -> list[int]:
    """Return the processes of the database that serve long duties."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
    return [row["pid"] for row in harness.db.run(query, APPLICATION)]


def waiting(harness: DispatcherHarness) -> list[int]:
    """Return those of them that wait for the lock."""
    query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = ANY(%s)"
    return [row["pid"] for row in harness.db.run(query, connections(harness))]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, LongDuties)]


@pytest.fixture
def slots(harness: DispatcherHarness) -> None:
    """A live worker."""
    harness.db.worker = harness.db.start_worker(slots=3)
    harness.db.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")


@pytest.mark.usefixtures("slots")
def test_ticks_go_on_while_a_duty_waits_in_a_statement(harness: DispatcherHarness) -> None:
    duty = RecordedDuty(until_the_lock_is_free, every_s=3600.0)
    with harness.db.transaction() as tx:
        tx.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        harness.leading(duties=[duty])
        eventually(lambda: waiting(harness), "the duty does not wait for the lock")
        job = harness.db.enqueue()
        eventually(lambda: (job, None) in harness.units(), "nothing is dispatched")
        harness.a_few_ticks()
        duty.events.append("work is dispatched")
    duty.wait_for("begins", "work is dispatched", "ends")


@pytest.mark.usefixtures("slots")
def test_a_duty_that_raises_is_logged_and_run_again_and_the_others_run(
    harness: DispatcherHarness, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [ValueError("a fault of the duty")]

    def raise_once(*_: object) -> None:
        if faults:
            raise faults.pop()

    faulty, other = RecordedDuty(raise_once, "faulty"), RecordedDuty(lambda *_: None, "other")
    running = harness.leading(duties=[faulty, other])
    faulty.wait_for("begins", "begins", "ends")
    other.wait_for("begins", "ends")
    (record,) = [record for record in caplog.records if record.message.startswith("long_duties.")]
    assert (record.message, record.keys) == ("long_duties.broken", {"duty": "faulty"})  # type: ignore[attr-defined]
    assert running.leader.leads


@pytest.mark.usefixtures("slots")
def test_a_cut_connection_is_opened_again(harness: DispatcherHarness, caplog: pytest.LogCaptureFixture) -> None:
    cuts = ["SELECT pg_terminate_backend(pg_backend_pid())"]

    def cut_once(tx: Connection, _: Callable[[], bool]) -> None:
        tx.execute(cuts.pop() if cuts else "SELECT")

    duty = RecordedDuty(cut_once)
    running = harness.leading(duties=[duty])
    duty.wait_for("begins", "begins", "ends")
    assert [record.message for record in caplog.records if "lost" in record.message] == ["long_duties.database_lost"]
    assert running.leader.leads
    job = harness.db.enqueue()
    eventually(lambda: (job, None) in harness.units(), "nothing is dispatched")


def test_a_lost_lead_ends_a_duty_which_runs_again_in_the_next_term(harness: DispatcherHarness) -> None:
    duty = RecordedDuty(until_the_lead_is_lost)
    running = harness.leading(duties=[duty])
    duty.wait_for("begins")
    harness.db.run("UPDATE leadership SET holder = %s, until = now() + interval '1 hour'", uuid4())
    eventually(lambda: not running.leader.leads and not connections(harness), "it holds its connection")
    assert duty.events[-1] == "ends"
    seen = len(duty.events)
    duty.events.append("the other leader is gone")
    harness.db.run("UPDATE leadership SET until = now() - interval '1 s'")
    eventually(lambda: duty.events[seen:][:2] == ["the other leader is gone", "begins"], "it does not run again")


def test_a_stop_ends_a_duty(harness: DispatcherHarness) -> None:
    duty = RecordedDuty(until_the_lead_is_lost)
    running = harness.leading(duties=[duty], lead_s=60.0)
    duty.wait_for("begins")
    running.stop()
    assert duty.events == ["begins", "ends"]
    assert threads() == []


def test_a_process_that_does_not_lead_runs_no_duty_and_opens_no_connection(harness: DispatcherHarness) -> None:
    checks = threading.Semaphore(0)
    duty = RecordedDuty(lambda *_: None)
    long_duties = LongDuties([duty], harness.settings(), term=checks.release)  # returns None
    long_duties.start()
    for _ in range(3):
        assert checks.acquire(timeout=SOON_S)
    long_duties.end()
    long_duties.join(SOON_S)
    assert duty.events == connections(harness) == []


def test_without_a_duty_there_is_no_thread_and_no_connection(harness: DispatcherHarness) -> None:
    harness.leading()
    harness.a_few_ticks()
    assert threads() == connections(harness) == []
