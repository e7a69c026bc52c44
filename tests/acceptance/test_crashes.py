"""Worker processes that are killed, frozen or stopped in the middle of an upload."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.processes import ALONE, PARENT, running
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation

SHIPPED = {"SLICEWAY_HEARTBEAT_S": "2", "SLICEWAY_DEAD_AFTER_S": "10", "SLICEWAY_LEAD_S": "3"}


def test_an_idle_leader_goes_on_leading(site: Installation) -> None:
    site.workers(2)

    def lead() -> dict[str, object]:
        [row] = site.sql("SELECT holder, term, until FROM leadership") or [{"until": None}]
        return row

    site.until(lambda: lead()["until"] is not None, "a leader")
    seen = [lead()]
    for _ in range(6):
        site.until(lambda: lead()["until"] != seen[-1]["until"], "a renewed term")
        seen.append(lead())
    assert len({(row["holder"], row["term"]) for row in seen}) == 1


def test_after_sigkill_only_the_slices_in_flight_are_sent_again(site: Installation) -> None:
    site.workers(2, SLICEWAY_WORKER_THREADS="2")
    key = site.fresh_key()
    site.store.hold("data", key, offset=4 * SLICE_BYTES, count=1)
    job = site.enqueue(5 * MIB, key)
    site.store.held("data", job.key)
    victim = site.holder(job, 4)
    victim.kill()
    site.until(lambda: "worker_lost" in job.kinds, "its claims freed")
    site.store.control.release()  # the dead worker's bytes arrive nevertheless, and are the same
    result = job.succeeds()
    assert result["slices"]["deaths"] <= 2
    assert job.sent_twice_bytes() <= 2 * SLICE_BYTES


def test_with_the_shipped_times_a_dead_workers_slice_runs_elsewhere_long_before_its_lease_ends(
    site: Installation,
) -> None:
    site.workers(2, **SHIPPED)
    key = site.fresh_key()
    site.store.hold("data", key, offset=SLICE_BYTES, count=1)
    job = site.enqueue(2 * MIB, key)
    [held] = site.store.held("data", job.key)
    site.until(lambda: job.done() == 3, "the others")
    victim = site.holder(job, 1)
    lease_ends = job.slices[1]["lease_until"]
    victim.kill()
    site.until(lambda: len(job.asked("data", offset=SLICE_BYTES)) > 1, "the slice sent again")
    [lost] = [event["at"] for event in job.events if event["kind"] == "worker_lost"]
    assert lost < lease_ends
    job.succeeds()
    assert job.sent_twice_bytes() == held["size"]


def test_a_worker_that_slept_past_its_death_changes_nothing_and_ends_itself(site: Installation) -> None:
    site.workers(2)
    job, let_go = site.enqueue_held(2 * MIB, offset=0, count=1)
    sleeper = site.holder(job, 0)
    token = job.slices[0]["token"]
    sleeper.freeze()
    let_go()  # the store has it; the sleeper will hear so when it wakes
    result = job.succeeds()
    assert result["slices"]["deaths"] >= 1
    events = job.kinds
    sleeper.thaw()
    assert sleeper.ended()
    assert "worker.taken_for_dead" in sleeper.text()
    assert f"token {token} is no longer held" in sleeper.text()
    assert job.kinds == events


def test_a_late_checkpoint_under_an_old_token_is_void(site: Installation) -> None:
    site.workers(2)
    job, let_go = site.enqueue_held(2 * MIB, offset=0, count=2)
    site.until(lambda: job.done() == 3, "the others")
    sleeper = site.holder(job, 0)
    old = job.slices[0]["token"]
    sleeper.freeze()
    site.store.held("data", job.key, 2)
    sleeper.thaw()
    first, _ = site.store.held("data", job.key, 2)
    site.store.control.release(first["number"])
    assert sleeper.ended()
    assert [row["state"] for row in job.slices] == ["sending", "done", "done", "done"]
    assert job.slices[0]["token"] > old
    let_go()
    job.succeeds()
    assert job.sent_twice_bytes() == SLICE_BYTES


def test_sigterm_hands_the_work_back_at_once(site: Installation) -> None:
    [worker] = site.workers(1, SLICEWAY_WORKER_THREADS="2")
    site.store.control.change(rate_bytes_per_s=3 * MIB)
    job = site.enqueue(24 * MIB, slice_size=3 * MIB)
    site.until(lambda: len(job.asked("data")) >= 4, "slices on their way")
    worker.terminate()
    site.until(lambda: not any(row["state"] == "sending" for row in job.slices), "given back")
    assert worker.ended()
    site.store.control.change(rate_bytes_per_s=None)
    site.workers(1)
    result = job.succeeds()
    assert job.sent_twice_bytes() <= 2 * 3 * MIB
    assert result["slices"]["deaths"] == 0
    assert result["slices"]["failed_attempts"] == 0


def test_a_stopped_worker_gives_back_what_the_store_does_not_answer(site: Installation) -> None:
    [worker] = site.workers(1)
    job, let_go = site.enqueue_held(2 * MIB, offset=SLICE_BYTES)
    worker.terminate()
    assert worker.ended()
    assert "worker.left" in worker.text()
    assert not [row for row in job.slices if row["state"] == "sending"]
    let_go()
    site.workers(1)
    assert job.succeeds()["slices"]["deaths"] == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_children_do_not_outlive_their_parent(site: Installation, how: signal.Signals) -> None:
    [parent] = site.workers(1, PARENT, SLICEWAY_WORKER_PROCESSES="2")
    job = site.enqueue(2 * MIB)
    job.succeeds()
    children = parent.children()
    assert len(children) == 2
    if how is signal.SIGTERM:
        parent.terminate()
        assert parent.ended()
    else:
        parent.kill()
    site.until(lambda: not any(running(pid) for pid in children), "the children's end")
    live = site.sql("SELECT name FROM worker WHERE ended_at IS NULL")
    assert not [row for row in live if any(row["name"].endswith(f":{pid}") for pid in children)]


def test_a_parent_starts_anew_what_dies(site: Installation) -> None:
    [parent] = site.workers(1, PARENT, SLICEWAY_WORKER_PROCESSES="1")
    [child] = parent.children()
    key = site.fresh_key()
    site.store.hold("data", key, offset=0, count=1)
    job = site.enqueue(2 * MIB, key)
    site.store.held("data", job.key)
    os.kill(child, signal.SIGKILL)
    job.succeeds()
    assert parent.children() != [child]
    assert "pool.worker_ended" in parent.text()


def test_celery_alone_is_a_whole_worker(site: Installation) -> None:
    site.workers(1, ALONE)
    job = site.enqueue(2 * MIB)
    job.succeeds()
