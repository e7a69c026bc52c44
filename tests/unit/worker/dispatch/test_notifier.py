"""The dispatcher is notified of a free slot, unless a waiting message has filled it."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from worker.dispatch.notifier import DispatcherNotifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 20.0


class Wakes:
    """Counts how often the notifier wakes the dispatcher."""

    def __init__(self) -> None:
        self.count = threading.Semaphore(0)
        self.urgent: list[bool] = []

    def wake(self, *, urgent: bool) -> None:
        self.urgent.append(urgent)
        self.count.release()

    def woken(self) -> bool:
        return self.count.acquire(timeout=DEADLINE_S)


@pytest.fixture
def notifier(wakes: Wakes, taken: Callable[[], int]) -> Iterator[DispatcherNotifier]:
    no_database: Any = SimpleNamespace()  # this process leads, so it sends no NOTIFY
    wakeup: Any = wakes
    made = DispatcherNotifier(no_database, wakeup, leads=lambda: True, taken=taken)
    made.start()
    yield made
    made.end()
    made.join(DEADLINE_S)


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


@pytest.fixture
def reads() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture(params=["starving"])
def taken(request: pytest.FixtureRequest, reads: threading.Semaphore) -> Callable[[], int]:
    """The count of claimed messages in a process that claims all the time, or never."""
    numbers = itertools.repeat(0) if request.param == "starving" else itertools.count()

    def read() -> int:
        reads.release()
        return next(numbers)

    return read


def test_a_slot_that_stays_free_wakes_the_dispatcher(notifier: DispatcherNotifier, wakes: Wakes) -> None:
    notifier.slot_freed()
    assert wakes.woken()
    assert wakes.urgent == [False]


@pytest.mark.parametrize("taken", ["fed"], indirect=True)
def test_a_slot_that_was_filled_does_not_wake_it_but_new_work_does(
    notifier: DispatcherNotifier, wakes: Wakes, reads: threading.Semaphore
) -> None:
    notifier.slot_freed()
    assert all(reads.acquire(timeout=DEADLINE_S) for _ in range(2)), "before and after"
    notifier.notify_dispatcher()
    assert wakes.woken()
    assert wakes.urgent == [True]
    notifier.end()
    notifier.join(DEADLINE_S)
    assert not wakes.count.acquire(blocking=False), "both woke the dispatcher"
