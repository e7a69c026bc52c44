"""The dispatcher marks and publishes what is due, never too much, and makes again whatever was lost."""

from __future__ import annotations

import socket
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.integration.dispatch.office import eventually
from worker.broker.publisher import Broker
from worker.errors import StaleClaim
from worker.ids import task_id
from worker.jobs import breakers, transitions, workers
from worker.jobs.states import JobState
from worker.jobs.task_names import TaskName

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.integration.dispatch.office import Office
    from worker.local.valkey import EmbeddedValkey

LEASE = timedelta(minutes=1)
ERROR = {"code": "store_unusable", "message": "no", "advice": "look"}


@pytest.fixture
def slots(office: Office) -> int:
    """How many slots the one live worker has."""
    office.bench.worker = office.bench.start_worker(slots=3)
    office.bench.run("UPDATE worker SET heartbeat_at = now() + interval '1 hour'")  # it lives as long as the test
    return 3


@pytest.mark.usefixtures("slots")
def test_what_is_due_is_marked_and_published_as_a_worker_and_an_operator_read_it(office: Office) -> None:
    job = office.bench.enqueue(key="video/a.mp4")
    office.leading()
    (message,) = office.wait_for(1)
    assert (message.job, message.number, message.token, message.epoch) == (job, None, 1, 1)
    assert message.name == TaskName.INIT
    assert message.task_id == task_id(job, TaskName.INIT, 1, 1)
    assert message.shown == f"job={job} main:video/a.mp4"
    assert office.bench.row(job)["step"] == "dispatched"
    with office.bench.db.connection() as tx:
        transitions.claim_step(tx, message.claim(office.bench.worker), JobState.QUEUED, LEASE)


@pytest.mark.usefixtures("slots")
def test_a_slice_is_published_with_its_place_in_the_file(office: Office) -> None:
    job = office.bench.uploading(2, key="k")
    office.leading(window=1)
    (message,) = office.wait_for(1)
    assert (message.name, message.number) == (TaskName.SLICE, 0)
    assert message.shown == f"job={job} main:k slice 1/2 bytes 0-9"
    assert message.task_id == task_id(job, "0", 1, 1)


@pytest.mark.usefixtures("slots")
def test_what_has_killed_workers_is_to_run_alone(office: Office) -> None:
    first, second = office.bench.uploading(1), office.bench.uploading(1)
    office.bench.run("UPDATE slice SET deaths = 2 WHERE job_id = %s", second)
    office.leading()
    assert {message.job: message.alone for message in office.wait_for(2)} == {first: False, second: True}


def test_it_hands_out_twice_the_slots_and_no_more(office: Office, slots: int) -> None:
    for _ in range(4):
        office.bench.uploading(8)
    office.leading()
    office.wait_for(2 * slots)
    office.a_few_turns()
    assert len(office.messages()) == 2 * slots
    assert office.bench.run("SELECT count(*) AS n FROM slice WHERE state = 'dispatched'") == [{"n": 2 * slots}]
    message = office.take()
    with office.bench.db.connection() as tx:
        transitions.claim_slice(tx, message.claim(office.bench.worker), low_speed=1, slack=LEASE)
    office.a_few_turns()
    assert len(office.messages()) == 2 * slots - 1  # what is being sent counts as well
    office.bench.checkpoint(message.claim(office.bench.worker))
    office.bench.run("NOTIFY sliceway_work")
    office.wait_for(2 * slots)


def test_nothing_is_handed_out_where_nobody_could_do_it(office: Office) -> None:
    office.bench.enqueue()
    office.leading()
    office.a_few_turns()
    assert office.messages() == []


def test_nothing_is_handed_out_while_the_queue_is_long(office: Office, slots: int) -> None:
    """The broker holds messages that no row stands for, as after a database that was set back."""
    office.queue.lpush("sliceway", *["{}"] * (2 * slots))
    job = office.bench.enqueue()
    office.leading()
    office.a_few_turns()
    assert office.bench.row(job)["step"] == "pending"
    office.queue.delete("sliceway")
    eventually(lambda: (job, None) in office.whats(), "it is not dispatched")


@pytest.mark.usefixtures("slots")
def test_stores_have_caps_and_jobs_windows(office: Office) -> None:
    capped, free = office.bench.uploading(4, store="small"), office.bench.uploading(8)
    office.leading(caps={"small": 1}, window=3)
    office.wait_for(4)
    office.a_few_turns()
    assert Counter(job for job, _ in office.whats() if job in {capped, free}) == {capped: 1, free: 3}


@pytest.mark.usefixtures("slots")
def test_a_store_that_waits_gets_one_probe_when_it_is_due(office: Office) -> None:
    job = office.bench.uploading(4)
    with office.bench.db.connection() as tx:
        breakers.open_breaker(tx, "main", ERROR, probe_s=60)
    elsewhere = office.bench.enqueue(store="b")
    office.leading()
    office.wait_for(1)
    assert office.whats() == [(elsewhere, None)]
    office.bench.run("UPDATE breaker SET probe_at = now()")
    office.bench.run("NOTIFY sliceway_work")
    office.wait_for(2)
    assert office.whats()[-1] == (job, 0)
    (breaker,) = office.bench.run("SELECT probe_at > now() AS again_later FROM breaker")
    assert breaker["again_later"]


@pytest.mark.usefixtures("slots")
def test_what_waits_is_published_when_its_time_has_come(office: Office) -> None:
    job = office.bench.enqueue()
    office.bench.run("UPDATE job SET not_before = now() + interval '0.3 s' WHERE id = %s", job)
    office.leading()
    office.wait_for(1)
    (row,) = office.bench.run("SELECT dispatched_at >= created_at + interval '0.2 s' AS waited FROM job")
    assert row["waited"]


# --- what was lost ---


@pytest.mark.usefixtures("slots")
def test_an_emptied_broker_is_filled_again_with_the_same_tokens(office: Office) -> None:
    office.bench.uploading(3)
    office.bench.enqueue()
    office.leading()
    before = office.wait_for(4)
    office.queue.flushall()
    after = office.wait_for(4)
    assert {(m.what, m.token, m.task_id) for m in after} == {(m.what, m.token, m.task_id) for m in before}
    taken = next(message for message in after if message.number == 0)
    again = next(message for message in before if message.number == 0)
    with office.bench.db.connection() as tx:  # one copy wins
        transitions.claim_slice(tx, taken.claim(office.bench.worker), low_speed=1, slack=LEASE)
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, again.claim(uuid4()), low_speed=1, slack=LEASE)


@pytest.mark.usefixtures("slots")
def test_what_a_worker_may_have_taken_with_it_is_published_again(office: Office) -> None:
    other = office.bench.start_worker()
    job = office.bench.uploading(1)
    office.leading()
    lost = office.take()
    office.bench.end_worker(other)
    office.bench.run("NOTIFY sliceway_work")
    again = office.take()
    assert (again.what, again.token) == (lost.what, lost.token) == ((job, 0), lost.token)


@pytest.mark.usefixtures("slots")
def test_what_later_messages_have_overtaken_is_published_again(office: Office) -> None:
    job = office.bench.uploading(1)
    office.leading()
    lost = office.take()
    office.queue.lpush("sliceway", "{}")  # the queue is not empty: something waits, and this was passed by
    office.bench.run("UPDATE slice SET dispatched_at = dispatched_at - interval '1 minute'")
    (clock,) = office.bench.run("SELECT now() AS now")
    with office.bench.db.connection() as tx:
        workers.heartbeat(tx, office.bench.worker, slots=4, roots=[], claimed_through=clock["now"])
    eventually(lambda: office.queue.llen("sliceway") == 2, "it is not published again")
    office.queue.rpop("sliceway")
    again = office.take()
    assert (again.what, again.token) == ((job, 0), lost.token)


@pytest.mark.usefixtures("slots")
def test_what_an_old_leader_marked_is_published_by_the_next(office: Office) -> None:
    """It may have died between its mark and its message."""
    job = office.bench.uploading(2)
    office.bench.dispatch(job, 0)
    token = office.bench.slices(job)[0]["token"]
    office.leading()
    office.wait_for(2)
    assert {(m.what, m.token) for m in office.messages()} == {((job, 0), token), ((job, 1), 1)}


@pytest.mark.usefixtures("slots")
def test_a_new_leader_takes_over_when_the_old_one_is_gone(office: Office) -> None:
    office.bench.run("UPDATE worker SET slots = 100")  # room for what the old leader dispatched, and for its copies
    first = office.leading()
    second = office.start()
    office.a_few_turns()
    assert not second.dispatcher.leads
    first.stop()
    eventually(lambda: second.dispatcher.leads, "nobody took over")
    job = office.bench.enqueue()
    eventually(lambda: (job, None) in office.whats(), "the new leader publishes nothing")
    assert office.bench.run("SELECT term FROM leadership") == [{"term": 2}]


@pytest.mark.usefixtures("slots")
def test_a_fault_of_its_own_does_not_end_the_dispatch(office: Office) -> None:
    """A thread that ended would leave a worker that leads and dispatches nothing, for as long as it has a heartbeat."""

    class Faulty(Broker):
        faults = 0

        def publish(self, rows: Sequence[dict[str, Any]]) -> None:
            if rows and not self.faults:
                self.faults += 1
                raise TypeError("a row that nobody thought of")
            super().publish(rows)

    job = office.bench.enqueue()
    office.start(broker=Faulty)
    (message,) = office.wait_for(1)
    assert (message.job, message.token) == (job, 1)


# --- the dead ---


def test_a_silent_worker_is_declared_dead_and_what_it_held_goes_on(office: Office) -> None:
    office.bench.worker = office.bench.start_worker(slots=1)
    job = office.bench.uploading(1)
    office.bench.take(job, 0)
    office.leading()
    eventually(lambda: office.bench.run("SELECT id FROM worker WHERE \"end\" = 'dead'"), "nobody is declared dead")
    eventually(lambda: office.bench.states(job) == ["pending"], "its slice was not freed")
    assert office.bench.slices(job)[0]["deaths"] == 1
    office.bench.start_worker(slots=1)
    assert office.take().what == (job, 0)


def test_what_has_killed_four_workers_is_quarantined(office: Office) -> None:
    office.bench.worker = office.bench.start_worker(slots=1)
    job = office.bench.uploading(1)
    office.bench.take(job, 0)
    office.bench.run("UPDATE slice SET deaths = 3")
    office.bench.end_worker(office.bench.worker)
    office.leading()
    eventually(lambda: office.bench.row(job)["state"] == "failed", "the job goes on")
    error = office.bench.row(job)["error"]
    assert error["code"] == "quarantined"
    assert "4 worker processes died at slice 0" in error["message"]


# --- broker and database away ---


@pytest.fixture
def broker_restarts(valkey: EmbeddedValkey) -> Iterator[EmbeddedValkey]:
    """The broker, for a test that kills it; it runs again afterwards."""
    yield valkey
    if not valkey.is_ready():
        valkey.start()


@pytest.mark.usefixtures("slots")
def test_a_broker_that_comes_back_gets_everything(office: Office, broker_restarts: EmbeddedValkey) -> None:
    office.bench.uploading(2)
    leader = office.leading()
    before = office.wait_for(2)
    broker_restarts.kill()
    job = office.bench.enqueue()
    assert leader.thread.is_alive()
    broker_restarts.start()
    eventually(lambda: len(set(office.whats())) == 3, "not everything came back")
    tokens = {message.what: message.token for message in office.messages()}
    assert {what: tokens[what] for what in tokens if what[0] != job} == {m.what: m.token for m in before}
    assert leader.dispatcher.leads


@pytest.mark.usefixtures("slots")
def test_connections_that_are_cut_are_opened_again(office: Office) -> None:
    leader = office.leading()
    for _ in range(3):
        office.bench.run(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name IN ('office', 'sliceway listen')"""
        )
        job = office.bench.enqueue()
        eventually(lambda j=job: (j, None) in office.whats(), "nothing is published any more")  # type: ignore[misc]
        assert leader.thread.is_alive()
        office.queue.delete("sliceway")
        office.bench.run("DELETE FROM job")


# --- two at once ---


@pytest.mark.usefixtures("slots")
def test_two_leaders_at_once_hand_out_everything_once(office: Office) -> None:
    """A leader that was held up does not know that another leads now; both take turns."""
    office.bench.run("UPDATE worker SET slots = 500")
    jobs = [office.bench.uploading(4) for _ in range(20)] + [office.bench.enqueue() for _ in range(20)]
    for _ in range(2):
        office.start(lead_s=60)
    until_both_lead(office)
    eventually(lambda: len(office.messages()) >= 100, "not everything was dispatched")
    office.a_few_turns()
    messages = [message for message in office.messages() if message.job in jobs]
    assert {message.what for message in messages} == {
        *((job, number) for job in jobs[:20] for number in range(4)),
        *((job, None) for job in jobs[20:]),
    }
    assert max(row["token"] for job in jobs[:20] for row in office.bench.slices(job)) == 1
    assert {office.bench.row(job)["token"] for job in jobs[20:]} == {1}


def until_both_lead(office: Office) -> None:
    """Let the lead lapse for whoever does not have it; whoever does believes that it is theirs for 20 s."""

    def both() -> bool:
        for running in office.running:
            if not running.dispatcher.leads:
                office.bench.run("UPDATE leadership SET until = now() - interval '1 s'")
                running.dispatcher._next.clear()
                office.bench.run("NOTIFY sliceway_work")
        return all(running.dispatcher.leads for running in office.running)

    eventually(both, "only one leads")


@pytest.mark.usefixtures("slots")
@pytest.mark.parametrize(
    "listens_at", ["postgresql://127.0.0.1:{port}/x", "postgresql://127.0.0.1:1/x", "no url at all"]
)
def test_a_leader_that_cannot_listen_polls(office: Office, listens_at: str) -> None:
    """A server that takes the connection and says nothing, one that is nowhere, and an error of another kind."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        leader = office.leading(listens_at=listens_at.format(port=silent.getsockname()[1]))
        for count in (1, 2):
            office.bench.enqueue()
            office.wait_for(count)
        assert leader.dispatcher.leads
