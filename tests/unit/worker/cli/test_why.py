"""What `why` and `jobs why` print."""

from __future__ import annotations

from typing import Any

from worker.cli.why import MAX_REASONS, job_lines, queue_lines

BREAKER = {
    "code": "breaker_open",
    "words": "Store main is unusable\x1b[31m.",
    "advice": "Correct the key.",
    "jobs": 1237,
}
SLOT = {"code": "slot", "words": "Waits for a slot: 16 requests out for 8 slots.", "advice": None, "jobs": 41}


def test_what_all_jobs_wait_for() -> None:
    assert queue_lines({"waiting": 1278, "running": 1, "reasons": [BREAKER, SLOT]}) == [
        "1,278 jobs wait, 1 is under way.",
        "  1,237  Store main is unusable\\x1b[31m.",
        "         Correct the key.",
        "     41  Waits for a slot: 16 requests out for 8 slots.",
    ]
    assert queue_lines({"waiting": 0, "running": 0, "reasons": []}) == ["0 jobs wait, 0 are under way."]


def test_what_all_jobs_wait_for_fits_on_a_screen() -> None:
    found = {"waiting": 20, "running": 0, "reasons": [BREAKER] * 20}
    lines = queue_lines(found)
    assert len(lines) == 2 + 2 * MAX_REASONS
    assert lines[-1] == "There are 8 more reasons: --json has all of them."


def test_why_a_job_waits() -> None:
    found: dict[str, Any] = {"id": "7", "state": "queued", "waits": True, "summary": "", "reasons": [BREAKER, SLOT]}
    assert job_lines(found) == [
        "Job 7 is queued, and waits:",
        "  1. Store main is unusable\\x1b[31m.",
        "     Correct the key.",
        "  2. Waits for a slot: 16 requests out for 8 slots.",
    ]
    assert job_lines(found | {"waits": False})[0] == "Job 7 is queued, and is under way:"
    assert job_lines(found | {"reasons": [], "summary": "It has ended."}) == ["It has ended."]
