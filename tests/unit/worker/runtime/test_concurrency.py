"""How many slices a process sends at once, against stores with a known behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.runtime.concurrency import MAX_IN_MEMORY, MAX_SLOTS, MIN_SLOTS, Slots, most_tasks

if TYPE_CHECKING:
    from collections.abc import Callable


def grown(slots: Slots, took_s: Callable[[int], float], ticks: int = 200) -> list[int]:
    """Observe so many times while every slot is in use; return the number of slots each time."""
    return [slots.observe(slots.now, took_s(slots.now)) for _ in range(ticks)]


def test_a_store_that_only_takes_its_time_gets_as_many_as_there_are() -> None:
    assert grown(Slots(), lambda _: 0.1)[-1] == MAX_SLOTS


@pytest.mark.parametrize("room", [1, MIN_SLOTS - 1])
def test_what_is_full_already_gets_hardly_more_than_the_least(room: int) -> None:
    numbers = grown(Slots(), lambda slots: 0.02 * max(1, slots / room))
    assert max(numbers) <= MIN_SLOTS + MIN_SLOTS // 4
    assert sorted(numbers)[len(numbers) // 2] == MIN_SLOTS


def test_it_stops_growing_where_more_is_of_no_use() -> None:
    numbers = grown(Slots(), lambda slots: 0.1 * max(1.0, slots / 10) ** 2)
    assert MIN_SLOTS < sorted(numbers)[len(numbers) // 2] < MAX_SLOTS


def test_it_shrinks_when_the_store_gets_slow_under_it() -> None:
    slots = Slots()
    grown(slots, lambda _: 0.1)
    assert grown(slots, lambda slots: 0.1 * slots, ticks=20)[-1] == MIN_SLOTS


def test_it_grows_again_when_the_store_has_recovered() -> None:
    slots = Slots()
    grown(slots, lambda slots: 0.1 * slots)
    assert grown(slots, lambda _: 0.1)[-1] == MAX_SLOTS


def test_slots_that_lack_work_do_not_grow_and_shrink_after_a_while() -> None:
    slots = Slots()
    assert [slots.observe(MIN_SLOTS // 2, 0.1) for _ in range(200)] == [MIN_SLOTS] * 200
    grown(slots, lambda _: 0.1)
    assert [slots.observe(1, 0.1) for _ in range(200)][-1] == MIN_SLOTS


def test_nothing_is_concluded_from_too_few_slices() -> None:
    slots = Slots()
    assert [slots.observe(MIN_SLOTS, None) for _ in range(50)] == [MIN_SLOTS] * 50


@pytest.mark.parametrize(("took_s", "ahead"), [(0.1, MAX_IN_MEMORY - MAX_SLOTS), (3.0, 0)])
def test_slices_are_claimed_ahead_only_where_others_need_not_wait_for_them(took_s: float, ahead: int) -> None:
    slots = Slots()
    assert slots.prefetch == 0
    grown(slots, lambda _: took_s)
    assert (slots.now, slots.prefetch) == (MAX_SLOTS, ahead)
    for _ in range(200):
        slots.observe(0, None)
    assert slots.prefetch == 0


@pytest.mark.parametrize("fixed", [None, 1, 2, 4, 8, 12, 100])
def test_no_more_are_claimed_than_there_are_threads_for(fixed: int | None) -> None:
    slots = Slots(fixed=fixed)
    seen = {slots.now + slots.prefetch}
    for _ in range(200):
        slots.observe(slots.now, 0.1)
        seen.add(slots.now + slots.prefetch)
    assert max(seen) == most_tasks(fixed)


def test_as_many_more_are_claimed_ahead_as_memory_allows() -> None:
    tasks = {fixed: most_tasks(fixed) for fixed in (2, 4, 8, 12, 100)}
    assert tasks == {2: 4, 4: 8, 8: 16, 12: MAX_IN_MEMORY, 100: 104}


def test_a_single_slot_does_one_thing_at_a_time() -> None:
    slots = Slots(fixed=1)
    grown(slots, lambda _: 0.1)
    assert (slots.now, slots.prefetch) == (1, 0)


def test_what_the_operator_has_set_stays() -> None:
    slots = Slots(fixed=3)
    assert set(grown(slots, lambda _: 0.1)) == {3}
