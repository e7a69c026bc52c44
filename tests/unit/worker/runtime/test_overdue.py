"""A thread counts as stuck by the time that its process ran, not by the time that has passed."""

from __future__ import annotations

import threading
from uuid import uuid4

from worker.jobs.leases import Claim
from worker.runtime.overdue import OverdueWatch
from worker.tasks.guard import ClaimGuard, boot_clock_s

STUCK_AFTER_S = 15.0
POLL_INTERVAL_S = 0.5


def a_guard(deadline_in_s: float) -> ClaimGuard:
    claim = Claim(uuid4(), 1, 2, 1, uuid4())
    deadline_s = boot_clock_s() + deadline_in_s
    return ClaimGuard(claim, deadline_s=deadline_s, stopping=threading.Event(), revoked=lambda: False)


def polls_until_stuck(watch: OverdueWatch, guards: list[ClaimGuard], now_s: float) -> int:
    for poll in range(1, 1000):
        if watch.is_stuck(guards, now_s + poll * POLL_INTERVAL_S):
            return poll
    return 1000


def test_a_thread_that_never_ends_is_stuck_once_it_was_overdue_for_so_long() -> None:
    watch, overdue = OverdueWatch(STUCK_AFTER_S), a_guard(0)
    assert not watch.is_stuck([overdue], 0.0)
    assert polls_until_stuck(watch, [overdue], 0.0) == STUCK_AFTER_S / POLL_INTERVAL_S + 1


def test_a_process_that_stood_still_is_not_stuck_when_it_wakes_up() -> None:
    watch, overdue = OverdueWatch(STUCK_AFTER_S), a_guard(0)
    assert not watch.is_stuck([overdue], 0.0)
    assert not watch.is_stuck([overdue], 3600.0)
    assert not watch.is_stuck([overdue], 3600.0 + POLL_INTERVAL_S)


def test_one_that_stood_still_and_whose_thread_then_never_ends_is_stuck_all_the_same() -> None:
    watch, overdue = OverdueWatch(STUCK_AFTER_S), a_guard(0)
    assert not watch.is_stuck([overdue], 0.0)
    assert not watch.is_stuck([overdue], 3600.0)
    assert polls_until_stuck(watch, [overdue], 3600.0) <= STUCK_AFTER_S / POLL_INTERVAL_S


def test_claims_that_are_overdue_one_after_the_other_are_not_one_that_is_stuck() -> None:
    watch = OverdueWatch(STUCK_AFTER_S)
    assert not any(watch.is_stuck([a_guard(0)], poll * POLL_INTERVAL_S) for poll in range(200))


def test_work_within_its_deadline_is_never_stuck() -> None:
    watch, working = OverdueWatch(STUCK_AFTER_S), a_guard(3600)
    assert polls_until_stuck(watch, [working], 0.0) == 1000
