"""Who is told that a slot is free: nobody, if a message that waited has filled it."""

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


class Turns:
    """Counts how often the dispatcher was woken."""

    def __init__(self) -> None:
        self.count = threading.Semaphore(0)
        self.hurried: list[bool] = []

    def wake(self, *, urgent: bool) -> None:
        self.hurried.append(urgent)
        self.count.release()

    def came(self) -> bool:
        return self.count.acquire(timeout=DEADLINE_S)


@pytest.fixture
def notifier(turns: Turns, taken: Callable[[], int]) -> Iterator[DispatcherNotifier]:
    parts: Any = SimpleNamespace(leads=True)
    wakeup: Any = turns
    made = DispatcherNotifier(SimpleNamespace(), parts, wakeup, taken)  # type: ignore[arg-type]  # no database: it leads
    made.start()
    yield made
    made.end()
    made.join(DEADLINE_S)


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def looks() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture(params=["starving"])
def taken(request: pytest.FixtureRequest, looks: threading.Semaphore) -> Callable[[], int]:
    """Of a process that finds a message in every moment, or none."""
    numbers = itertools.repeat(0) if request.param == "starving" else itertools.count()

    def look() -> int:
        looks.release()
        return next(numbers)

    return look


def test_a_slot_that_stays_free_asks_for_a_turn(notifier: DispatcherNotifier, turns: Turns) -> None:
    notifier.slot_freed()
    assert turns.came()
    assert turns.hurried == [False]


@pytest.mark.parametrize("taken", ["fed"], indirect=True)
def test_a_slot_that_was_filled_asks_for_none_but_something_new_does(
    notifier: DispatcherNotifier, turns: Turns, looks: threading.Semaphore
) -> None:
    notifier.slot_freed()
    assert all(looks.acquire(timeout=DEADLINE_S) for _ in range(2)), "before and after"
    notifier.notify_dispatcher()
    assert turns.came()
    assert turns.hurried == [True]
    notifier.end()
    notifier.join(DEADLINE_S)
    assert not turns.count.acquire(blocking=False), "both asked for a turn"
