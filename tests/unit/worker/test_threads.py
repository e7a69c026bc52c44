from __future__ import annotations

import select
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from worker.threads import TaskPool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def hub() -> Iterator[Hub]:
    before, hub = get_event_loop(), Hub()
    set_event_loop(hub)
    next(hub.create_loop())  # its waker is made by the loop
    yield hub
    hub.close()
    set_event_loop(before)


def test_a_thread_that_is_free_again_wakes_the_loop_that_had_stopped_fetching(hub: Hub) -> None:
    pool = TaskPool(limit=1, app=SimpleNamespace())
    end = threading.Event()

    pool.on_apply(end.wait, (20.0,), {}, callback=lambda _: None)
    end.set()

    assert select.select([hub._waker.fileno()], [], [], 20.0)[0], "nothing woke the loop: it sleeps till its next timer"
    pool.on_stop()
