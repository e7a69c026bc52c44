"""A claim's guard says when to stop and why; the gate lets what has killed workers run alone."""

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


def test_each_reason_is_told() -> None:
    lost, _ = a_guard()
    lost.lost = True
    stopped, stopping = a_guard()
    stopping.set()
    assert why(lost) is Stop.CANCELLED
    assert why(stopped) is Stop.SHUTDOWN
    assert why(a_guard(0)[0]) is Stop.DEADLINE
    assert why(a_guard(revoked=True)[0]) is Stop.REVOKED


def test_a_claim_that_is_lost_is_so_whatever_else_there_is() -> None:
    """Giving it back would be refused; nothing else matters then."""
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


def test_a_wait_of_nothing_still_looks() -> None:
    guard, _ = a_guard(revoked=True)
    with pytest.raises(Interrupted):
        guard.wait(0)


class Visitor:
    """A thread that goes through the gate and stays inside until it is let out."""

    def __init__(self, gate: SharedExclusiveLock, pool: ThreadPoolExecutor, *, alone: bool) -> None:
        self.inside, self._out = threading.Event(), threading.Event()
        self._visit = pool.submit(self._go, gate, alone)

    def _go(self, gate: SharedExclusiveLock, alone: Any) -> None:
        with gate.enter(alone=alone):
            self.inside.set()
            assert self._out.wait(30)

    def leave(self) -> None:
        self._out.set()
        self._visit.result(30)


def wait_until_waiting(gate: SharedExclusiveLock) -> None:
    """Wait until somebody who wants to be alone stands at the gate."""
    while True:
        with gate._changed:
            if gate._waiting_alone:
                return


def test_work_goes_on_side_by_side() -> None:
    gate = SharedExclusiveLock()
    with ThreadPoolExecutor(3) as pool:
        visitors = [Visitor(gate, pool, alone=False) for _ in range(3)]
        assert all(visitor.inside.wait(30) for visitor in visitors)
        for visitor in visitors:
            visitor.leave()


def test_who_runs_alone_waits_for_the_others_and_keeps_later_ones_out() -> None:
    gate = SharedExclusiveLock()
    with ThreadPoolExecutor(3) as pool:
        first = Visitor(gate, pool, alone=False)
        assert first.inside.wait(30)
        alone = Visitor(gate, pool, alone=True)
        wait_until_waiting(gate)
        later = Visitor(gate, pool, alone=False)
        assert not alone.inside.is_set()
        assert not later.inside.is_set()  # no stream of others can hold up who waits to be alone
        first.leave()
        assert alone.inside.wait(30)
        assert not later.inside.is_set()
        alone.leave()
        assert later.inside.wait(30)
        later.leave()


def test_one_after_the_other_runs_alone() -> None:
    gate = SharedExclusiveLock()
    with ThreadPoolExecutor(2) as pool:
        first = Visitor(gate, pool, alone=True)
        assert first.inside.wait(30)
        second = Visitor(gate, pool, alone=True)
        wait_until_waiting(gate)
        assert not second.inside.is_set()
        first.leave()
        assert second.inside.wait(30)
        second.leave()


def test_who_fails_inside_leaves_too() -> None:
    gate = SharedExclusiveLock()
    with pytest.raises(ValueError, match="inside"), gate.enter(alone=True):
        raise ValueError("inside")
    with gate.enter(alone=False), gate.enter(alone=False):
        pass


def test_a_room_lets_in_as_many_as_its_size_says_and_one_more_when_it_grows() -> None:
    room, inside, leave = ResizableSemaphore(2), threading.Semaphore(0), threading.Event()

    def visit() -> None:
        with room.enter(a_guard()[0]):
            inside.release()
            assert leave.wait(20)

    with ThreadPoolExecutor(3) as pool:
        visits = [pool.submit(visit) for _ in range(3)]
        assert all(inside.acquire(timeout=20) for _ in range(2))
        assert not inside.acquire(timeout=0.3), "a third was let in"
        room.resize(3)
        assert inside.acquire(timeout=20)
        leave.set()
        for each in visits:
            each.result(20)


def test_who_waits_for_room_obeys_the_guard() -> None:
    room = ResizableSemaphore(1)
    guard, stopping = a_guard()
    stopping.set()
    with room.enter(a_guard()[0]), pytest.raises(Interrupted), room.enter(guard):
        pytest.fail("there was no room")
    with room.enter(guard):
        pass


def test_who_gets_no_room_in_half_the_claims_time_blames_nobody() -> None:
    room = ResizableSemaphore(1)
    guard, _ = a_guard(2.0)
    with room.enter(a_guard()[0]), pytest.raises(Interrupted) as interrupted, room.enter(guard):
        pytest.fail("there was no room")
    assert interrupted.value.stop is Stop.SLOT_WAIT_TIMEOUT
    assert guard.remaining_s() > 0.0
