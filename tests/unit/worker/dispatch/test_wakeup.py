"""The dispatcher's sleep: no wake is lost, and a wake after its end does no harm."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from worker.dispatch.wakeup import Wakeup

if TYPE_CHECKING:
    from worker.db.connection import Row

FAR_S = 3600.0


def test_a_wake_ends_the_sleep_or_the_next_one() -> None:
    wakeup = Wakeup("postgresql://unused")
    wakeup.wake()
    wakeup.wait(FAR_S, busy=True)
    sleeper = threading.Thread(target=wakeup.wait, args=(FAR_S,), kwargs={"busy": False})
    sleeper.start()
    wakeup.wake()
    sleeper.join(30)
    assert not sleeper.is_alive()
    wakeup.close()


def test_a_wake_that_is_not_urgent_waits_for_the_end_of_the_pause() -> None:
    wakeup = Wakeup("postgresql://unused")
    sleeper = threading.Thread(target=wakeup.wait, args=(FAR_S,), kwargs={"busy": True, "pause_s": FAR_S})
    sleeper.start()
    wakeup.wake(urgent=False)
    sleeper.join(0.5)
    assert sleeper.is_alive()
    wakeup.wake(urgent=True)
    sleeper.join(30)
    assert not sleeper.is_alive()
    wakeup.wake(urgent=False)
    wakeup.wait(FAR_S, busy=True)  # without a pause
    wakeup.close()


def test_no_wake_ends_the_pause_of_a_saturated_sleeper() -> None:
    wakeup = Wakeup("postgresql://unused")
    options = {"busy": True, "pause_s": 1.0, "saturated": True}
    sleeper = threading.Thread(target=wakeup.wait, args=(FAR_S,), kwargs=options)
    sleeper.start()
    wakeup.wake()
    sleeper.join(0.3)
    assert sleeper.is_alive()
    sleeper.join(30)
    assert not sleeper.is_alive(), "the pause did not end it"
    wakeup.close()


def test_any_number_of_wakes_is_one() -> None:
    wakeup = Wakeup("postgresql://unused")
    for _ in range(100_000):  # more than a pipe takes
        wakeup.wake()
    wakeup.wait(FAR_S, busy=True)
    wakeup.close()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_wake_after_the_end_touches_nothing(threads: int) -> None:
    """The descriptor of a closed pipe may soon be another file's: a wake must not write to it."""
    wakeup = Wakeup("postgresql://unused")
    wakeup.close()
    read, write = os.pipe()
    os.set_blocking(read, False)
    late = [threading.Thread(target=wakeup.wake) for _ in range(threads)]
    for thread in late:
        thread.start()
    for thread in late:
        thread.join(30)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    os.close(read)
    os.close(write)
    wakeup.close()


@pytest.mark.parametrize(
    "failure", [psycopg.ProgrammingError("x"), psycopg.OperationalError("x"), OSError("x"), KeyError("x")]
)
def test_a_failed_listen_of_any_kind_means_polling(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Event()

    def listen(_: object) -> psycopg.Connection[Row]:
        tried.set()
        raise failure

    wakeup = Wakeup("postgresql://unused", listen)
    wakeup.connect()
    assert tried.wait(FAR_S)
    for thread in threading.enumerate():
        if thread.name == "listen":
            thread.join()
    wakeup.wait(FAR_S, busy=True)  # as long as a poll interval, not as long as the argument
    wakeup.connect()
    wakeup.close()
    assert [record.message for record in caplog.records] == ["dispatcher.polls"]


def test_a_server_that_does_not_answer_blocks_nothing() -> None:
    answered, begun = threading.Event(), threading.Event()

    def listen(_: object) -> psycopg.Connection[Row]:
        begun.set()
        answered.wait(FAR_S)
        raise psycopg.OperationalError

    wakeup = Wakeup("postgresql://unused", listen)
    wakeup.connect()
    assert begun.wait(FAR_S)
    wakeup.connect()
    wakeup.wait(FAR_S, busy=True)
    wakeup.close()
    answered.set()
