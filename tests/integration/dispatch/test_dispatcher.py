"""The dispatcher dispatches what is due, within its limits, and redispatches what was lost."""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.dispatch.harness import eventually
from tests.integration.jobs.database import ERROR, LEASE
from worker.broker.publisher import Broker
from worker.errors import StaleClaim
from worker.ids import task_id
from worker.jobs import breakers, transitions, workers
from worker.jobs.states import JobState
from worker.jobs.task_names import TaskName

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.integration.dispatch.harness import DispatcherHarness
    from worker.jobs.rows import Dispatched
    from worker.local.valkey import EmbeddedValkey


@pytest.fixture
def slots(harness: DispatcherHarness) -> int:
    """The slots of the one live worker."""
    harness.db.worker = harness.db.start_worker(slots=3)
    harness.db.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")  # it stays alive during the test
    return 3


@pytest.mark.usefixtures("slots")
def test_what_is_due_is_dispatched_and_published_for_workers_and_operators(harness: DispatcherHarness) -> None:
    job = harness.db.enqueue(key="video/a.mp4")
    harness.leading()
    (message,) = harness.wait_for(1)
    assert (message.job, message.number, message.token, message.epoch) == (job, None, 1, 1)
    assert message.name == TaskName.INIT
    assert message.task_id == task_id(job, TaskName.INIT, 1, 1)
    assert message.argsrepr == f"job={job} main:video/a.mp4"
    assert harness.db.row(job)["step"] == "dispatched"
    with harness.db.connection() as tx:
        transitions.claim_step(tx, message.claim(harness.db.worker), JobState.QUEUED, LEASE)


@pytest.mark.usefixtures("slots")
def test_a_slice_is_published_with_its_place_in_the_file(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(2, key="k")
    harness.leading(window=1)
    (message,) = harness.wait_for(1)
    assert (message.name, message.number) == (TaskName.SLICE, 0)
    assert message.argsrepr == f"job={job} main:k slice 1/2 bytes 0-9"
    assert message.task_id == task_id(job, "0", 1, 1)


@pytest.mark.usefixtures("slots")
def test_what_has_killed_workers_is_to_run_alone(harness: DispatcherHarness) -> None:
    first, second = harness.db.uploading(1), harness.db.uploading(1)
    harness.db.run("UPDATE slice SET deaths = 2 WHERE job_id = %s", second)
    harness.leading()
    assert {message.job: message.alone for message in harness.wait_for(2)} == {first: False, second: True}


def test_it_dispatches_twice_the_slots_and_no_more(harness: DispatcherHarness, slots: int) -> None:
    for _ in range(4):
        harness.db.uploading(8)
    harness.leading()
    harness.wait_for(2 * slots)
    harness.a_few_ticks()
    assert len(harness.messages()) == 2 * slots
    assert harness.db.run("SELECT count(*) AS n FROM slice WHERE state = 'dispatched'") == [{"n": 2 * slots}]
    message = harness.take()
    with harness.db.connection() as tx:
        transitions.claim_slice(tx, message.claim(harness.db.worker), low_speed=1, slack=LEASE)
    harness.a_few_ticks()
    assert len(harness.messages()) == 2 * slots - 1  # what is being sent counts as well
    harness.db.checkpoint(message.claim(harness.db.worker))
    harness.db.run("NOTIFY sliceway_work")
    harness.wait_for(2 * slots)


def test_nothing_is_dispatched_without_a_worker(harness: DispatcherHarness) -> None:
    harness.db.enqueue()
    harness.leading()
    harness.a_few_ticks()
    assert harness.messages() == []


def test_nothing_is_dispatched_while_the_queue_is_long(harness: DispatcherHarness, slots: int) -> None:
    """The broker has messages without a row, as after the restore of an older database."""
    harness.queue.lpush("sliceway", *["{}"] * (2 * slots))
    job = harness.db.enqueue()
    harness.leading()
    harness.a_few_ticks()
    assert harness.db.row(job)["step"] == "pending"
    harness.queue.delete("sliceway")
    eventually(lambda: (job, None) in harness.units(), "it is not dispatched")


@pytest.mark.usefixtures("slots")
def test_stores_have_caps_and_jobs_windows(harness: DispatcherHarness) -> None:
    capped, free = harness.db.uploading(4, store="small"), harness.db.uploading(8)
    harness.leading(caps={"small": 1}, window=3)
    harness.wait_for(4)
    harness.a_few_ticks()
    assert Counter(job for job, _ in harness.units() if job in {capped, free}) == {capped: 1, free: 3}


@pytest.mark.usefixtures("slots")
def test_a_store_that_waits_gets_one_probe_when_it_is_due(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(4)
    with harness.db.connection() as tx:
        breakers.open_breaker(tx, "main", ERROR, probe_s=60)
    elsewhere = harness.db.enqueue(store="b")
    harness.leading()
    harness.wait_for(1)
    assert harness.units() == [(elsewhere, None)]
    harness.db.run("UPDATE breaker SET probe_at = now()")
    harness.db.run("NOTIFY sliceway_work")
    harness.wait_for(2)
    assert harness.units()[-1] == (job, 0)
    (breaker,) = harness.db.run("SELECT probe_at > now() AS again_later FROM breaker")
    assert breaker["again_later"]


@pytest.mark.usefixtures("slots")
def test_what_waits_is_published_when_its_time_has_come(harness: DispatcherHarness) -> None:
    job = harness.db.enqueue()
    harness.db.run("UPDATE job SET not_before = now() + interval '0.3 s' WHERE id = %s", job)
    harness.leading()
    harness.wait_for(1)
    (row,) = harness.db.run("SELECT dispatched_at >= created_at + interval '0.2 s' AS waited FROM job")
    assert row["waited"]


# --- lost messages ---


@pytest.mark.usefixtures("slots")
def test_an_emptied_broker_is_refilled_with_the_same_tokens(harness: DispatcherHarness) -> None:
    harness.db.uploading(3)
    harness.db.enqueue()
    harness.leading()
    before = harness.wait_for(4)
    harness.queue.flushall()
    after = harness.wait_for(4)
    assert {(m.unit, m.token, m.task_id) for m in after} == {(m.unit, m.token, m.task_id) for m in before}
    taken = next(message for message in after if message.number == 0)
    copy = next(message for message in before if message.number == 0)
    with harness.db.connection() as tx:  # one copy wins
        transitions.claim_slice(tx, taken.claim(harness.db.worker), low_speed=1, slack=LEASE)
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, copy.claim(uuid4()), low_speed=1, slack=LEASE)


@pytest.mark.usefixtures("slots")
def test_a_message_that_an_ended_worker_may_have_taken_is_resent(harness: DispatcherHarness) -> None:
    other = harness.db.start_worker()
    job = harness.db.uploading(1)
    harness.leading()
    lost = harness.take()
    harness.db.end_worker(other)
    harness.db.run("NOTIFY sliceway_work")
    resent = harness.take()
    assert (resent.unit, resent.token) == (lost.unit, lost.token) == ((job, 0), lost.token)


@pytest.mark.usefixtures("slots")
def test_a_message_older_than_the_claimed_watermark_is_resent(harness: DispatcherHarness) -> None:
    job = harness.db.uploading(1)
    harness.leading()
    lost = harness.take()
    harness.queue.lpush("sliceway", "{}")  # the queue is not empty: later messages were claimed before this one
    harness.db.run("UPDATE slice SET dispatched_at = dispatched_at - interval '1 minute'")
    (clock,) = harness.db.run("SELECT now() AS now")
    with harness.db.connection() as tx:
        workers.heartbeat(tx, harness.db.worker, slots=4, roots=[], claimed_through=clock["now"])
    eventually(lambda: harness.queue.llen("sliceway") == 2, "it is not resent")
    harness.queue.rpop("sliceway")
    resent = harness.take()
    assert (resent.unit, resent.token) == ((job, 0), lost.token)


@pytest.mark.usefixtures("slots")
def test_what_an_old_leader_dispatched_is_published_by_the_next(harness: DispatcherHarness) -> None:
    """The old leader may have died between its commit and its publish."""
    job = harness.db.uploading(2)
    harness.db.dispatch(job, 0)
    token = harness.db.slices(job)[0]["token"]
    harness.leading()
    harness.wait_for(2)
    assert {(m.unit, m.token) for m in harness.messages()} == {((job, 0), token), ((job, 1), 1)}


@pytest.mark.usefixtures("slots")
def test_a_new_leader_takes_over_when_the_old_one_is_gone(harness: DispatcherHarness) -> None:
    harness.db.run("UPDATE worker SET slots = 100")  # room for what the old leader dispatched, and for its copies
    first = harness.leading()
    second = harness.start()
    harness.a_few_ticks()
    assert not second.leader.leads
    first.stop()
    eventually(lambda: second.leader.leads, "no leader took over")
    job = harness.db.enqueue()
    eventually(lambda: (job, None) in harness.units(), "the new leader publishes nothing")
    assert harness.db.run("SELECT term FROM leadership") == [{"term": 2}]


@pytest.mark.usefixtures("slots")
def test_an_unexpected_error_does_not_end_the_dispatch(harness: DispatcherHarness) -> None:
    """A worker whose leader thread ended would lead and dispatch nothing as long as its heartbeat goes on."""

    class Faulty(Broker):
        faults = 0

        def publish(self, items: Sequence[Dispatched]) -> None:
            if items and not self.faults:
                self.faults += 1
                raise TypeError("a row of an unexpected kind")
            super().publish(items)

    job = harness.db.enqueue()
    harness.start(broker=Faulty)
    (message,) = harness.wait_for(1)
    assert (message.job, message.token) == (job, 1)


# --- dead workers ---


def test_a_silent_worker_is_declared_dead_and_what_it_held_goes_on(harness: DispatcherHarness) -> None:
    harness.db.worker = harness.db.start_worker(slots=1)
    job = harness.db.uploading(1)
    harness.db.take(job, 0)
    harness.leading()
    eventually(lambda: harness.db.run("SELECT id FROM worker WHERE \"end\" = 'dead'"), "no worker is declared dead")
    eventually(lambda: harness.db.states(job) == ["pending"], "its slice was not freed")
    assert harness.db.slices(job)[0]["deaths"] == 1
    harness.db.start_worker(slots=1)
    assert harness.take().unit == (job, 0)


def test_what_has_killed_four_workers_is_quarantined(harness: DispatcherHarness) -> None:
    harness.db.worker = harness.db.start_worker(slots=1)
    job = harness.db.uploading(1)
    harness.db.take(job, 0)
    harness.db.run("UPDATE slice SET deaths = 3")
    harness.db.end_worker(harness.db.worker)
    harness.leading()
    eventually(lambda: harness.db.row(job)["state"] == "failed", "the job goes on")
    error = harness.db.row(job)["error"]
    assert error["code"] == "quarantined"
    assert "4 worker processes died at slice 0" in error["message"]


# --- broker and database unavailable ---


@pytest.fixture
def broker_restarts(valkey: EmbeddedValkey) -> Iterator[EmbeddedValkey]:
    """The broker, for a test that kills it; the fixture restarts it."""
    yield valkey
    if not valkey.is_ready():
        valkey.start()


@pytest.mark.usefixtures("slots")
def test_a_broker_that_comes_back_gets_everything(harness: DispatcherHarness, broker_restarts: EmbeddedValkey) -> None:
    harness.db.uploading(2)
    running = harness.leading()
    before = harness.wait_for(2)
    broker_restarts.kill()
    job = harness.db.enqueue()
    assert running.thread.is_alive()
    broker_restarts.start()
    eventually(lambda: len(set(harness.units())) == 3, "not everything came back")
    tokens = {message.unit: message.token for message in harness.messages()}
    assert {unit: tokens[unit] for unit in tokens if unit[0] != job} == {m.unit: m.token for m in before}
    assert running.leader.leads


@pytest.mark.usefixtures("slots")
def test_connections_that_are_cut_are_opened_again(harness: DispatcherHarness) -> None:
    leader = harness.leading()
    for _ in range(3):
        harness.db.run(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name IN ('dispatcher', 'sliceway listen')"""
        )
        job = harness.db.enqueue()
        eventually(lambda j=job: (j, None) in harness.units(), "nothing is published any more")  # type: ignore[misc]
        assert leader.thread.is_alive()
        harness.queue.delete("sliceway")
        harness.db.run("DELETE FROM job")


# --- two leaders at once ---


@pytest.mark.usefixtures("slots")
def test_two_leaders_at_once_dispatch_everything_once(harness: DispatcherHarness) -> None:
    """A delayed leader does not know that another leads now; both run ticks."""
    harness.db.run("UPDATE worker SET slots = 500")
    jobs = [harness.db.uploading(4) for _ in range(20)] + [harness.db.enqueue() for _ in range(20)]
    for _ in range(2):
        harness.start(lead_s=60)
    until_both_lead(harness)
    eventually(lambda: len(harness.messages()) >= 100, "not everything was dispatched")
    harness.a_few_ticks()
    messages = [message for message in harness.messages() if message.job in jobs]
    assert {message.unit for message in messages} == {
        *((job, number) for job in jobs[:20] for number in range(4)),
        *((job, None) for job in jobs[20:]),
    }
    assert max(row["token"] for job in jobs[:20] for row in harness.db.slices(job)) == 1
    assert {harness.db.row(job)["token"] for job in jobs[20:]} == {1}


def until_both_lead(harness: DispatcherHarness) -> None:
    """Let the lead lapse until both lead: the present leader does not check its lead for 20 s."""

    def both() -> bool:
        for running in harness.running:
            if not running.leader.leads:
                harness.db.run("UPDATE leadership SET until = now() - interval '1 s'")
                running.leader._cadence.restart()
                harness.db.run("NOTIFY sliceway_work")
        return all(running.leader.leads for running in harness.running)

    eventually(both, "only one leads")


@pytest.mark.usefixtures("slots")
@pytest.mark.parametrize(
    "listens_at", ["postgresql://127.0.0.1:{port}/x", "postgresql://127.0.0.1:1/x", "no url at all"]
)
def test_a_leader_that_cannot_listen_polls(harness: DispatcherHarness, listens_at: str) -> None:
    """A server that accepts and sends nothing, an address without a server, and an invalid URL."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        running = harness.leading(listens_at=listens_at.format(port=silent.getsockname()[1]))
        for count in (1, 2):
            harness.db.enqueue()
            harness.wait_for(count)
        assert running.leader.leads
