from __future__ import annotations

import select
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from celery.worker.state import reserved_requests
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from worker.runtime.task_pool import TaskPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Reserved:
    """A task that the worker has reserved."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    before, hub = get_event_loop(), Hub()
    set_event_loop(hub)
    next(hub.create_loop())  # the loop makes its waker
    yield hub
    hub.close()
    set_event_loop(before)


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    pool = TaskPool(limit=2, app=SimpleNamespace())
    yield pool
    pool.on_stop()
    reserved_requests.clear()


def woken(hub: Hub, *, within_s: float) -> bool:
    assert hub._waker is not None
    return bool(select.select([hub._waker.fileno()], [], [], within_s)[0])


def ending(task: Reserved) -> Callable[[], None]:
    return lambda: reserved_requests.discard(task)


def test_a_thread_that_becomes_free_wakes_the_loop_that_had_stopped_fetching(hub: Hub, pool: TaskPool) -> None:
    pool.slots, task = 1, Reserved()
    reserved_requests.add(task)
    assert len(reserved_requests) >= pool.num_processes, "the loop fetches nothing"

    pool.submit(ending(task))

    assert woken(hub, within_s=20.0), "nothing woke the loop: it sleeps till its next timer"


def test_a_loop_that_had_found_a_free_slot_is_left_to_wait_for_its_message(hub: Hub, pool: TaskPool) -> None:
    task = Reserved()
    reserved_requests.add(task)
    assert len(reserved_requests) < pool.num_processes

    pool.submit(ending(task))
    pool.on_stop()

    assert not woken(hub, within_s=0.0)


def test_tasks_run_side_by_side_in_as_many_threads_as_they_need(pool: TaskPool) -> None:
    both, seen = threading.Barrier(2, timeout=20.0), []
    for _ in range(2):
        pool.submit(lambda: seen.append((both.wait(), threading.current_thread().name)))
    pool.on_stop()
    assert {name for _, name in seen} == {"task-1", "task-2"}
    assert pool.info["threads"] == 2


def test_a_task_is_run_by_the_thread_that_is_idle(pool: TaskPool) -> None:
    for _ in range(3):
        over = threading.Event()
        pool.submit(over.set)
        assert over.wait(20.0)
        while not pool._idle:
            assert pool._threads[0].is_alive()
    assert pool.info["threads"] == 1


def test_a_thread_outlives_what_escapes_from_a_task(pool: TaskPool) -> None:
    over = threading.Event()

    def escape() -> None:
        raise SystemExit

    for work in (escape, escape, over.set):
        pool.submit(work)
    assert over.wait(20.0)


def test_celerys_own_call_to_run_a_task_is_served_too(pool: TaskPool) -> None:
    calls: list[object] = []
    pool.apply_async(divmod, (7, 2), callback=calls.append, accept_callback=lambda *_: calls.append("accepted"))
    pool.on_stop()
    assert calls == ["accepted", (3, 1)]
