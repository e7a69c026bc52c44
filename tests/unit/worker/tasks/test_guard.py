"""A claim's guard stops the work with a reason; a lock lets slices that have killed workers run alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from worker.errors import Interrupted, Stop
from worker.jobs.leases import Claim
from worker.tasks.guard import ClaimGuard, boot_clock_s
from worker.tasks.limiters import ResizableSemaphore, SharedExclusiveLock

FAR_S = 3600.0


def a_guard(deadline_in_s: float = FAR_S, *, revoked: bool = False) -> tuple[ClaimGuard, threading.Event]:
    stopping = threading.Event()
    claim = Claim(uuid4(), 1, 2, 1, uuid4())
    guard = ClaimGuard(claim, deadline_s=boot_clock_s() + deadline_in_s, stopping=stopping, revoked=lambda: revoked)
    return guard, stopping


def why(guard: ClaimGuard) -> Stop:
    with pytest.raises(Interrupted) as interrupted:
        guard.check()
    return interrupted.value.stop


def test_work_goes_on_while_nothing_is_against_it() -> None:
    guard, _ = a_guard()
    guard.check()
    assert FAR_S - 60 < guard.remaining_s() <= FAR_S


def test_each_reason_is_reported() -> None:
    lost, _ = a_guard()
    lost.lost = True
    stopped, stopping = a_guard()
    stopping.set()
    assert why(lost) is Stop.CANCELLED
    assert why(stopped) is Stop.SHUTDOWN
    assert why(a_guard(0)[0]) is Stop.DEADLINE
    assert why(a_guard(revoked=True)[0]) is Stop.REVOKED


def test_a_claim_that_is_lost_is_so_whatever_else_there_is() -> None:
    """The release would be refused, so no other reason matters."""
    guard, stopping = a_guard(0, revoked=True)
    stopping.set()
    guard.lost = True
    assert why(guard) is Stop.CANCELLED


def test_a_stop_of_ours_is_not_blamed_on_the_store() -> None:
    guard, stopping = a_guard(0)
    stopping.set()
    assert why(guard) is Stop.SHUTDOWN


def test_an_extended_deadline_counts_from_now() -> None:
    guard, _ = a_guard(-5)
    assert guard.remaining_s() == 0.0
    guard.extend(FAR_S)
    guard.check()
    assert guard.remaining_s() > FAR_S - 60


def test_a_part_of_the_work_may_have_an_earlier_deadline_but_no_later_one() -> None:
    guard, _ = a_guard()
    with guard.within(0.0):
        assert why(guard) is Stop.DEADLINE
    with guard.within(2 * FAR_S):
        assert guard.remaining_s() <= FAR_S
    guard.check()


def test_a_wait_ends_with_the_stop() -> None:
    guard, stopping = a_guard()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(guard.wait, FAR_S)
        stopping.set()
        with pytest.raises(Interrupted, match="shutdown"):
            waiting.result(30)


def test_a_wait_ends_with_the_deadline() -> None:
    guard, _ = a_guard(0.01)
    with pytest.raises(Interrupted, match="deadline"):
        guard.wait(FAR_S)


def test_a_wait_of_zero_still_checks() -> None:
    guard, _ = a_guard(revoked=True)
    with pytest.raises(Interrupted):
        guard.wait(0)


class Holder:
    """A thread that holds the lock until the test releases it."""

    def __init__(self, lock: SharedExclusiveLock, pool: ThreadPoolExecutor, *, alone: bool) -> None:
        self.inside, self._out = threading.Event(), threading.Event()
        self._held = pool.submit(self._hold, lock, alone)

    def _hold(self, lock: SharedExclusiveLock, alone: Any) -> None:
        with lock.enter(alone=alone):
            self.inside.set()
            assert self._out.wait(30)

    def release(self) -> None:
        self._out.set()
        self._held.result(30)


def wait_until_waiting(lock: SharedExclusiveLock) -> None:
    """Wait until a thread waits for the exclusive lock."""
    while True:
        with lock._changed:
            if lock._waiting_alone:
                return


def test_shared_holders_run_at_once() -> None:
    lock = SharedExclusiveLock()
    with ThreadPoolExecutor(3) as pool:
        holders = [Holder(lock, pool, alone=False) for _ in range(3)]
        assert all(holder.inside.wait(30) for holder in holders)
        for holder in holders:
            holder.release()


def test_an_exclusive_holder_waits_for_the_others_and_blocks_later_ones() -> None:
    lock = SharedExclusiveLock()
    with ThreadPoolExecutor(3) as pool:
        first = Holder(lock, pool, alone=False)
        assert first.inside.wait(30)
        alone = Holder(lock, pool, alone=True)
        wait_until_waiting(lock)
        later = Holder(lock, pool, alone=False)
        assert not alone.inside.is_set()
        assert not later.inside.is_set()  # later shared holders must not starve the exclusive one
        first.release()
        assert alone.inside.wait(30)
        assert not later.inside.is_set()
        alone.release()
        assert later.inside.wait(30)
        later.release()


def test_two_exclusive_holders_follow_one_another() -> None:
    lock = SharedExclusiveLock()
    with ThreadPoolExecutor(2) as pool:
        first = Holder(lock, pool, alone=True)
        assert first.inside.wait(30)
        second = Holder(lock, pool, alone=True)
        wait_until_waiting(lock)
        assert not second.inside.is_set()
        first.release()
        assert second.inside.wait(30)
        second.release()


def test_an_error_releases_the_lock() -> None:
    lock = SharedExclusiveLock()
    with pytest.raises(ValueError, match="inside"), lock.enter(alone=True):
        raise ValueError("inside")
    with lock.enter(alone=False), lock.enter(alone=False):
        pass


def test_a_semaphore_admits_as_many_as_its_size_and_one_more_when_it_grows() -> None:
    semaphore, inside, leave = ResizableSemaphore(2), threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with semaphore.enter(a_guard()[0]):
            inside.release()
            assert leave.wait(20)

    with ThreadPoolExecutor(3) as pool:
        holders = [pool.submit(hold) for _ in range(3)]
        assert all(inside.acquire(timeout=20) for _ in range(2))
        assert not inside.acquire(timeout=0.3), "a third was let in"
        semaphore.resize(3)
        assert inside.acquire(timeout=20)
        leave.set()
        for each in holders:
            each.result(20)


def test_a_wait_for_a_slot_obeys_the_guard() -> None:
    semaphore = ResizableSemaphore(1)
    guard, stopping = a_guard()
    stopping.set()
    with semaphore.enter(a_guard()[0]), pytest.raises(Interrupted), semaphore.enter(guard):
        pytest.fail("there was no slot")
    with semaphore.enter(guard):
        pass


def test_a_wait_for_a_slot_ends_after_half_of_the_claims_time() -> None:
    semaphore = ResizableSemaphore(1)
    guard, _ = a_guard(2.0)
    with semaphore.enter(a_guard()[0]), pytest.raises(Interrupted) as interrupted, semaphore.enter(guard):
        pytest.fail("there was no slot")
    assert interrupted.value.stop is Stop.SLOT_WAIT_TIMEOUT
    assert guard.remaining_s() > 0.0
