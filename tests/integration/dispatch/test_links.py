"""As many slices are in flight to a store as its link carries, by what the workers report of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.dispatch.office import eventually
from worker.jobs import workers

if TYPE_CHECKING:
    from tests.integration.dispatch.office import Office, Running

SLOTS = 16


@pytest.fixture(autouse=True)
def slots(office: Office) -> int:
    """How many slots the one live worker has; no link is known."""
    office.bench.run("DELETE FROM store_link")
    office.bench.worker = office.bench.start_worker(slots=SLOTS)
    return SLOTS


def leading(office: Office) -> Running:
    """Start a leader that takes no worker for dead as long as the test lasts."""
    return office.leading(dead_after_s=3600.0)


def report(office: Office, **counters: Any) -> None:
    """Report as the worker; its slices are of 10 bytes."""
    given = {"answers": 0, "answered_bytes": 0, "answered_s": 0.0, "busy_s": 0.0, "timeouts": 0, "oldest_s": 0.0}
    with office.bench.db.connection() as tx:
        links = [{"store": "main"} | given | counters]
        assert workers.heartbeat(tx, office.bench.worker, slots=SLOTS, roots=[], claimed_through=None, links=links)
        office.bench.run("NOTIFY sliceway_work, 'now'")


def link(office: Office) -> dict[str, Any]:
    """What is kept of the link."""
    rows = office.bench.run("SELECT * FROM store_link WHERE store = 'main'")
    return rows[0] if rows else {}


def test_one_slice_goes_to_a_store_that_never_answered_and_more_once_it_has(office: Office) -> None:
    office.bench.uploading(20)
    leading(office)
    office.wait_for(1)
    office.a_few_turns()
    assert len(office.messages()) == 1
    report(office, answers=1, answered_bytes=10, answered_s=1.0, busy_s=1.0)
    office.wait_for(5)
    office.a_few_turns()
    assert len(office.messages()) == 5
    assert (link(office)["goodput_bytes_per_s"], link(office)["answer_s"]) == (10.0, 1.0)


def test_a_timeout_halves_what_is_in_flight(office: Office) -> None:
    office.bench.uploading(40)
    leading(office)
    office.wait_for(1)
    answered = {"answers": 4, "answered_bytes": 40, "answered_s": 4.0, "busy_s": 2.0}
    report(office, **answered)
    office.wait_for(10)
    report(office, **answered | {"timeouts": 1})
    eventually(lambda: link(office)["goodput_bytes_per_s"] == 10.0, "it is not halved")
    office.take()
    office.a_few_turns()
    assert len(office.messages()) == 9


def test_a_slow_store_leaves_half_of_the_slots_and_another_uses_them(office: Office) -> None:
    slow = office.bench.uploading(40)
    leading(office)
    office.wait_for(1)
    report(office, answers=1, answered_bytes=10, answered_s=2.1, busy_s=0.01)
    office.wait_for(SLOTS // 2)
    office.a_few_turns()
    assert {message.job for message in office.messages()} == {slow}
    office.bench.know_link("other")
    healthy = office.bench.uploading(4, store="other", tenant="other")
    office.wait_for(SLOTS // 2 + 4)
    assert [message.job for message in office.messages()].count(healthy) == 4


def test_the_next_leader_knows_the_link(office: Office) -> None:
    office.bench.uploading(20)
    first = leading(office)
    office.wait_for(1)
    report(office, answers=1, answered_bytes=10, answered_s=1.0, busy_s=1.0)
    office.wait_for(5)
    first.stop()
    office.queue.flushall()
    office.bench.run("UPDATE slice SET state = 'pending' WHERE state = 'dispatched'")
    leading(office)
    office.wait_for(5)


def test_a_link_of_long_ago_counts_as_unknown(office: Office) -> None:
    office.bench.know_link()
    office.bench.run("UPDATE store_link SET measured_at = now() - interval '11 minutes'")
    office.bench.uploading(20)
    leading(office)
    office.wait_for(1)
    office.a_few_turns()
    assert len(office.messages()) == 1
