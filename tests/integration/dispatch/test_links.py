"""The dispatcher keeps as many slices in flight to a store as its link carries, by the workers' reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.dispatch.harness import eventually
from worker.jobs import workers

if TYPE_CHECKING:
    from tests.integration.dispatch.harness import DispatcherHarness, Running

SLOTS = 16


@pytest.fixture(autouse=True)
def slots(harness: DispatcherHarness) -> int:
    """The slots of the one live worker; no link is known."""
    harness.db.run("DELETE FROM store_link")
    harness.db.worker = harness.db.start_worker(slots=SLOTS)
    return SLOTS


def start_leader(harness: DispatcherHarness) -> Running:
    """Start a leader that declares no worker dead during the test."""
    return harness.leading(dead_after_s=3600.0)


def report(harness: DispatcherHarness, **counters: Any) -> None:
    """Report as the worker; its slices are of 10 bytes."""
    given = {"answers": 0, "answered_bytes": 0, "answered_s": 0.0, "busy_s": 0.0, "timeouts": 0, "oldest_s": 0.0}
    with harness.db.connection() as tx:
        links = [{"store": "main"} | given | counters]
        assert workers.heartbeat(tx, harness.db.worker, slots=SLOTS, roots=[], claimed_through=None, links=links)
        harness.db.run("NOTIFY sliceway_work, 'now'")


def link(harness: DispatcherHarness) -> dict[str, Any]:
    """Return the row of the link."""
    rows = harness.db.run("SELECT * FROM store_link WHERE store = 'main'")
    return rows[0] if rows else {}


def test_one_slice_goes_to_a_store_that_never_answered_and_more_once_it_has(harness: DispatcherHarness) -> None:
    harness.db.uploading(20)
    start_leader(harness)
    harness.wait_for(1)
    harness.a_few_ticks()
    assert len(harness.messages()) == 1
    report(harness, answers=1, answered_bytes=10, answered_s=1.0, busy_s=1.0)
    harness.wait_for(5)
    harness.a_few_ticks()
    assert len(harness.messages()) == 5
    assert (link(harness)["goodput_bytes_per_s"], link(harness)["answer_s"]) == (10.0, 1.0)


def test_a_timeout_halves_what_is_in_flight(harness: DispatcherHarness) -> None:
    harness.db.uploading(40)
    start_leader(harness)
    harness.wait_for(1)
    answered = {"answers": 4, "answered_bytes": 40, "answered_s": 4.0, "busy_s": 2.0}
    report(harness, **answered)
    harness.wait_for(10)
    report(harness, **answered | {"timeouts": 1})
    eventually(lambda: link(harness)["goodput_bytes_per_s"] == 10.0, "it is not halved")
    harness.take()
    harness.a_few_ticks()
    assert len(harness.messages()) == 9


def test_a_slow_store_leaves_half_of_the_slots_and_another_uses_them(harness: DispatcherHarness) -> None:
    slow = harness.db.uploading(40)
    start_leader(harness)
    harness.wait_for(1)
    report(harness, answers=1, answered_bytes=10, answered_s=2.1, busy_s=0.01)
    harness.wait_for(SLOTS // 2)
    harness.a_few_ticks()
    assert {message.job for message in harness.messages()} == {slow}
    harness.db.know_link("other")
    healthy = harness.db.uploading(4, store="other", tenant="other")
    harness.wait_for(SLOTS // 2 + 4)
    assert [message.job for message in harness.messages()].count(healthy) == 4


def test_the_next_leader_reads_the_link(harness: DispatcherHarness) -> None:
    harness.db.uploading(20)
    first = start_leader(harness)
    harness.wait_for(1)
    report(harness, answers=1, answered_bytes=10, answered_s=1.0, busy_s=1.0)
    harness.wait_for(5)
    first.stop()
    harness.queue.flushall()
    harness.db.run("UPDATE slice SET state = 'pending' WHERE state = 'dispatched'")
    start_leader(harness)
    harness.wait_for(5)


def test_a_link_of_long_ago_counts_as_unknown(harness: DispatcherHarness) -> None:
    harness.db.know_link()
    harness.db.run("UPDATE store_link SET measured_at = now() - interval '11 minutes'")
    harness.db.uploading(20)
    start_leader(harness)
    harness.wait_for(1)
    harness.a_few_ticks()
    assert len(harness.messages()) == 1
