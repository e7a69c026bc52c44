"""A store that dies, forgets, refuses or answers nonsense in the middle of an upload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)


def test_killed_and_restarted(site: Installation) -> None:
    key = site.fresh_key()
    site.store.hold("data", key, offset=4 * SLICE_BYTES, count=1)
    job = site.enqueue(6 * MIB, key)
    site.store.held("data", job.key)
    flying = sum(row["state"] == "sending" for row in job.slices)
    site.store.kill()
    site.until(lambda: job.row["error"] is not None, "the failure noticed")
    site.store.start()
    result = job.succeeds()
    assert job.row["epoch"] == 1
    assert result["slices"]["failed_attempts"] == 0
    assert job.sent_twice_bytes() <= max(flying, 8) * SLICE_BYTES


def test_a_lost_session_is_begun_anew(site: Installation) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("lose_session", op="data", path=key, nth=5)
    job = site.enqueue(4 * MIB, key)
    job.succeeds()
    row = job.row
    assert (row["epoch"], row["session_losses"]) == (2, 1)
    assert job.kinds.count("session_lost") == 1
    assert len({entry["session"] for entry in job.asked("data")}) == 2


def test_a_session_that_is_lost_again_and_again_is_given_up(site: Installation) -> None:
    job, let_go = site.enqueue_held(2 * MIB, "init")
    site.sql("UPDATE job SET session_losses = 5 WHERE id = %(id)s", id=job.id)
    site.store.control.add_rule("lose_session", op="data", path=job.key)
    let_go()
    assert job.fails() == "session_lost"
    site.store.control.clear_rules()
    job.act("retry")
    job.succeeds()


def test_unavailable_for_a_while_uses_up_no_attempts(site: Installation) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, count=9, status=503, code=-196)
    job = site.enqueue(2 * MIB, key)
    result = job.succeeds()
    assert result["slices"]["failed_attempts"] == 0
    assert job.row["epoch"] == 1
    deferred, recovered = job.kinds.index("slice_deferred"), job.kinds.index("recovered")
    assert deferred < recovered < job.kinds.index("slices_done")
    assert job.events[recovered]["cause"]["code"] == job.events[deferred]["cause"]["code"] == "store_unavailable"


@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_answers_to_a_small_upload_use_up_no_attempts(site: Installation, when: str) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("cut", op="upload", path=key, count=2, when=when)
    job = site.enqueue(1000, key)
    job.succeeds()
    assert job.row["attempts"] == 0
    assert len(job.asked("upload", effect=0)) == 1


def test_a_refusal_of_our_credentials_lets_all_jobs_of_the_store_wait_for_one_probe(site: Installation) -> None:
    key = site.fresh_key()
    rule = site.store.control.add_rule("error", op="data", path=key, status=403, code=-97)
    job = site.enqueue(2 * MIB, key)
    site.until(lambda: _breaker(site), "the breaker")
    site.until(lambda: not _flying(site), "what was in flight")
    waiting = site.enqueue(1 * MIB)
    refused = len(job.asked("data"))
    view = job.view
    assert view["state"] == "uploading"
    assert view["error"]["code"] == "store_unusable"
    assert "-97" in view["error"]["message"]
    for each in (job, waiting):
        (reason,) = each.why["reasons"]
        assert reason["code"] == "breaker_open"
        assert "-97" in reason["words"]

    _probe_now(site)
    site.until(lambda: len(job.asked("data")) + len(waiting.asked("init")) > refused, "a probe")
    site.until(lambda: not _flying(site), "the probe's end")
    site.store.control.remove_rule(rule)
    if _breaker(site):  # the probe was the refused job's
        assert len(job.asked("data")) == refused + 1
        assert waiting.state == "queued"
        _probe_now(site)
    job.succeeds()
    waiting.succeeds()
    assert not _breaker(site)
    assert [row["attempts"] for row in (job.row, waiting.row)] == [0, 0]
    assert job.row["result"]["slices"]["failed_attempts"] == 0
    assert "recovered" in job.kinds[job.kinds.index("slice_deferred") :]
    assert waiting.why["summary"] == "The job has ended (succeeded): it waits for nothing."


def _breaker(site: Installation) -> bool:
    return bool(site.sql("SELECT store FROM breaker"))


def _flying(site: Installation) -> bool:
    return bool(
        site.sql("SELECT 1 AS one FROM slice WHERE state IN ('dispatched', 'sending')")
        or site.sql("SELECT 1 AS one FROM job WHERE step IN ('dispatched', 'running')")
    )


def _probe_now(site: Installation) -> None:
    """Let the minute between two probes be over."""
    site.sql("UPDATE breaker SET probe_at = now()")


@pytest.mark.parametrize("fault", ["wrong_session", "wrong_offset"])
def test_a_slice_acknowledged_as_another_is_sent_again(site: Installation, fault: str) -> None:
    key = site.fresh_key()
    site.store.control.add_rule(fault, op="data", path=key, offset=SLICE_BYTES, count=1)
    job = site.enqueue(2 * MIB, key)
    result = job.succeeds()
    assert result["slices"]["failed_attempts"] == 1
    assert job.sent_twice_bytes() == SLICE_BYTES


def test_a_slice_that_the_store_acknowledged_and_forgot_is_sent_again_before_the_end(site: Installation) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("swallow", op="data", path=key, offset=SLICE_BYTES, count=1)
    job = site.enqueue(2 * MIB, key)
    job.succeeds()
    assert "slices_missing" in job.kinds
    assert job.sent_twice_bytes() == SLICE_BYTES
    assert len(job.asked("finish")) == 1


def test_a_slice_that_never_gets_through_fails_the_job_with_the_stores_words(site: Installation) -> None:
    job = site.enqueue(2 * MIB)
    site.store.control.add_rule(
        "error", op="data", path=job.key, offset=0, status=400, code=-5999, message="no such thing"
    )
    job.fails()
    error = job.view["error"]
    assert "-5999" in error["message"]
    assert "no such thing" in error["answer"]
    assert error["advice"]
    site.store.control.clear_rules()
    job.act("retry")
    job.succeeds()
