"""Identities sort by age, and an operator sees a task again under the id that it had."""

from __future__ import annotations

import time
from uuid import RFC_4122, UUID

from worker.jobs.ids import new_id, task_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    for _ in range(200):
        made = new_id()
        assert (made.version, made.variant) == (7, RFC_4122)


def test_an_id_carries_the_milliseconds_of_its_making() -> None:
    before_ms = time.time_ns() // 1_000_000
    made_ms = new_id().int >> 80
    after_ms = time.time_ns() // 1_000_000
    assert before_ms <= made_ms <= after_ms


def test_ids_of_later_milliseconds_sort_later() -> None:
    first = new_id()
    while time.time_ns() // 1_000_000 == first.int >> 80:
        pass
    assert new_id() > first


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
