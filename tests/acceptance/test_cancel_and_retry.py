"""What operators do to jobs at the worst moment: cancel and retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.job import Job

SIZE = 2 * MIB


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)


def test_a_cancel_stops_slices_at_their_next_piece(site: Installation) -> None:
    site.store.control.change(rate_bytes_per_s=3 * MIB)
    job = site.enqueue(24 * MIB, slice_size=3 * MIB)
    site.until(lambda: len(job.asked("data")) >= 4, "slices on their way")
    job.act("cancel")
    claimed = sum(row["sends"] for row in job.slices)
    job.reaches("cancelled")
    assert len(job.asked("data")) <= claimed
    assert job.key not in site.store.unfinished()
    assert site.store.object_at(job.key) is None
    assert job.kinds[-2:] == ["cancel_requested", "cancelled"]


def test_a_cancel_waits_for_the_last_claim_before_it_cleans_up(site: Installation) -> None:
    job, let_go = site.enqueue_held(12 * MIB, requests=8)
    job.act("cancel")
    site.until(lambda: all(row["state"] != "dispatched" for row in job.slices), "nothing dispatched")
    claimed = sum(row["state"] == "sending" for row in job.slices)
    assert job.state == "cancelling"
    assert not job.asked("delete")
    let_go()
    job.reaches("cancelled")
    assert 8 <= len(job.asked("data")) <= claimed
    assert job.key not in site.store.unfinished()


def test_an_abandoned_job_ends_without_a_request_to_its_store(site: Installation) -> None:
    """Not before its last claim has ended; then the target is free, also for an upload under way."""
    job, let_go = site.enqueue_held(12 * MIB, requests=8)
    before = len(job.asked("delete")) + len(job.asked("list"))
    assert job.act("abandon", {"reason": "the store is gone"})["state"] == "cancelling"
    site.until(lambda: all(row["state"] != "dispatched" for row in job.slices), "nothing dispatched")
    assert job.state == "cancelling"
    let_go()
    job.reaches("cancelled")
    assert len(job.asked("delete")) + len(job.asked("list")) == before
    assert "was not asked" in job.row["result"]["session_left_open"]
    assert job.kinds[-4:] == ["cancel_requested", "abandon_requested", "session_left_open", "cancelled"]
    assert job.key in site.store.unfinished()
    job.act("retry")
    job.succeeds()


def test_a_job_whose_store_does_not_answer_is_abandoned(site: Installation) -> None:
    """A cancel would wait for its abort for a day."""
    job, let_go = site.enqueue_held(12 * MIB, requests=8)
    rule = site.store.control.add_rule("error", op="list", path=job.key, status=503)
    job.act("cancel")
    let_go()
    site.until(lambda: "abort_deferred" in job.kinds, "an abort that fails")
    job.act("abandon")
    job.reaches("cancelled")
    site.store.control.remove_rule(rule)
    assert job.kinds.count("cancel_requested") == 1
    job.act("retry", {"from": "scratch"})
    job.succeeds()


def test_a_held_store_gets_nothing_new_and_goes_on_after_its_release(site: Installation) -> None:
    job, let_go = site.enqueue_held(12 * MIB, requests=8)
    site.api.post("/v1/stores/main/pause", json={"reason": "maintenance"}).raise_for_status()
    let_go()
    site.until(lambda: not any(row["state"] in {"sending", "dispatched"} for row in job.slices), "what was in flight")
    sent = len(job.asked("data"))
    other = site.enqueue(2 * MIB)
    assert site.api.get(f"/v1/jobs/{other.id}/why").json()["reasons"][0]["code"] == "store_paused"
    assert (len(job.asked("data")), other.state) == (sent, "queued")
    site.api.post("/v1/stores/main/resume").raise_for_status()
    job.succeeds()
    other.succeeds()


def test_a_job_that_no_worker_began_is_cancelled_at_once(site: Installation) -> None:
    site.workers(0)
    job = site.enqueue(SIZE)
    assert job.act("cancel")["state"] == "cancelled"
    assert not site.store.requests(path=job.key)


@pytest.mark.parametrize("attributes", [None, "colour=green"])
def test_a_cancel_after_the_finish_is_too_late(site: Installation, attributes: str | None) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("finish", key, when="after")
    job = site.enqueue(SIZE, key, attributes=attributes)
    site.store.held("finish", job.key)
    job.act("cancel")
    let_go()
    job.reaches("succeeded")
    assert job.kinds[-1] == "cancel_too_late"


def test_a_cancel_before_the_finish_had_effect_cancels(site: Installation) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("finish", key)
    site.store.control.add_rule("cut", op="finish", path=key)
    job = site.enqueue(SIZE, key)
    site.store.held("finish", job.key)
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    assert site.store.object_at(job.key) is None
    # all its bytes are there, as if it were an object; its mark and its session show that it is none
    assert "session_left_open" not in job.kinds
    assert job.key not in site.store.unfinished()


def test_a_full_upload_without_our_mark_is_left_to_expire(site: Installation) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("finish", key)
    site.store.control.add_rule("cut", op="finish", path=key)
    job = site.enqueue(SIZE, key, attributes="theirs alone")
    site.store.held("finish", job.key)
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    # the protocol does not distinguish such an upload from an object, and deletes both alike
    assert job.row["result"]["session_left_open"]
    assert "session_left_open" in job.kinds


def test_a_cancel_in_the_middle_of_init_cleans_up_its_session(site: Installation) -> None:
    job, let_go = site.enqueue_held(SIZE, "init", when="after")
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    assert job.key not in site.store.unfinished() or "session_left_open" in job.kinds


def test_a_cancel_before_the_session_is_asked_for_ends_soon(site: Installation) -> None:
    site.workers(1, SLICEWAY_HEARTBEAT_S="1")
    key = site.fresh_key()
    let_go = site.store.hold("stat", key)
    job = site.enqueue(SIZE, key, overwrite=True)
    site.store.held("stat", job.key)
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    assert job.key not in site.store.unfinished() or "session_left_open" in job.kinds


def test_a_session_whose_handle_never_came_back_is_reported(site: Installation) -> None:
    site.store.control.add_rule("cut", op="init", path="orphan", when="after")
    job = site.enqueue(SIZE, "orphan")
    site.until(lambda: job.row["failing_since"], "the first failure")
    job.act("cancel")
    job.reaches("cancelled")


def kill_its_worker(site: Installation, job: Job) -> None:
    """Kill the worker that has the job's step."""
    [row] = site.sql("SELECT w.name FROM job j JOIN worker w ON w.id = j.worker WHERE j.id = %(id)s", id=job.id)
    site.worker_named(row["name"]).kill()


@pytest.mark.parametrize(("op", "size"), [("upload", 1000), ("init", SIZE)])
def test_what_a_killed_init_had_begun_is_looked_for_after_a_cancel(site: Installation, op: str, size: int) -> None:
    """It has recorded nothing yet, and no process has received the store's answer."""
    job, let_go = site.enqueue_held(size, op, when="after", count=1)
    job.act("cancel")
    kill_its_worker(site, job)
    let_go()
    if op == "upload":
        job.reaches("succeeded")
        assert job.kinds[-1] == "cancel_too_late"
        assert (job.row["size_bytes"], job.row["result"]["proof"]) == (size, "mark")
    else:
        job.reaches("cancelled")
        assert job.kinds[-2:] == ["session_left_open", "cancelled"]


def test_a_cancelled_job_can_be_retried_from_the_beginning(site: Installation) -> None:
    job, let_go = site.enqueue_held(6 * MIB, requests=8)
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    job.act("retry")
    job.succeeds()
    assert job.row["epoch"] == 2


def test_a_retry_while_the_old_worker_still_sends(site: Installation) -> None:
    job = site.enqueue(SIZE)
    site.store.control.add_rule(
        "error", op="data", path=job.key, offset=3 * SLICE_BYTES, status=400, code=-5999, count=1
    )
    for number in (0, 1, 3):
        site.store.hold("data", job.key, offset=number * SLICE_BYTES, count=1)
    site.store.held("data", job.key, 3)
    [refused] = job.asked("data", offset=3 * SLICE_BYTES)
    site.store.control.release(refused["number"])
    job.reaches("failed")
    job.act("retry")
    site.until(lambda: job.done() == 2, "the slice that failed sent again, with the others still on their way")
    assert [row["state"] for row in job.slices][:2] == ["sending", "sending"]
    site.store.control.release()
    job.succeeds()
    assert job.row["epoch"] == 1
    assert job.sent_twice_bytes() == SLICE_BYTES


def test_a_fresh_retry_while_the_old_worker_still_sends_takes_nothing_of_it(site: Installation) -> None:
    key = site.fresh_key()
    site.store.hold("data", key)
    size = 24 * MIB  # more than both workers have open at once
    job = site.enqueue(size, key)
    held = site.store.held("data", job.key, 8)
    job.path.write_bytes(b"n" * (size - 1))
    job.content = job.path.read_bytes()
    site.store.control.clear_rules()
    site.store.control.release(held[0]["number"])  # its sender goes on to the next slice, and finds another file
    assert job.fails() == "source_changed"
    job.act("retry")
    site.until(lambda: job.row["epoch"] == 2 and job.done(), "slices of the new epoch")
    site.store.control.release()
    job.succeeds()
    assert "foreign_session_discarded" in job.kinds
    assert len({entry["session"] for entry in job.asked("data")}) == 2


def test_a_target_is_held_until_its_job_has_ended(site: Installation) -> None:
    job, let_go = site.enqueue_held(SIZE, offset=0)
    body = {"source": {"kind": "file", "root": "media", "path": job.key}, "store": "twin", "key": job.key}
    answer = site.api.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "key_busy")
    assert answer.json()["job_id"] == job.id
    let_go()
    job.succeeds()
