"""Ids sort by age, and a task keeps its id across attempts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from worker.ids import Stamps, new_id, task_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    for _ in range(200):
        made = new_id()
        assert (made.version, made.variant) == (7, RFC_4122)


def test_an_id_carries_the_milliseconds_of_its_making() -> None:
    before_ms = time.time_ns() // 1_000_000
    made_ms = new_id().int >> 80
    after_ms = time.time_ns() // 1_000_000
    assert before_ms <= made_ms <= after_ms


def test_each_id_sorts_after_the_one_before() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)


def test_ids_that_several_threads_make_at_once_differ_and_are_in_order_for_each() -> None:
    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(lambda _: [new_id() for _ in range(1000)], range(8)))
    assert all(batch == sorted(batch) for batch in batches)
    assert len({made for batch in batches for made in batch}) == 8000


def test_a_clock_that_stands_or_is_set_back_does_not_set_ids_back() -> None:
    stamps = Stamps(iter([5_000_000, 5_000_000, 1_000_000, 5_000_001, 6_000_000]).__next__)
    assert [stamps.take() - (5 << 12) for _ in range(5)] == [0, 1, 2, 3, 1 << 12]


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_a_task_keeps_its_id_across_attempts_and_changes_it_with_everything_else() -> None:
    job, other = new_id(), new_id()
    assert task_id(job, "3", 1, 1) == task_id(job, "3", 1, 1)
    ids = [
        task_id(which, part, epoch, run)
        for which in (job, other)
        for part in ("0", "1", "11", "sliceway.init")
        for epoch in (1, 2, 11)
        for run in (1, 2, 11)
    ]
    assert len(set(ids)) == len(ids)
    assert all(UUID(made).version == 5 for made in ids)
