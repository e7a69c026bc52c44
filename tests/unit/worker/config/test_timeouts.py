"""A task has as long as the timeouts of its store need."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.store import profile
from worker.config.profiles import StoreProfile
from worker.config.timeouts import Timers

TIMERS = Timers(2.0, 10.0, 3.0)


def a_store(**timeouts: Any) -> StoreProfile:
    return StoreProfile.model_validate(profile("http://cos.example", name="main", **timeouts))


def limits(store: StoreProfile | None, timers: Timers = TIMERS) -> tuple[float, ...]:
    each = (timers.request_limit_s, timers.init_limit_s, timers.finish_limit_s, timers.abort_limit_s)
    return tuple(limit(store) for limit in each)


@pytest.mark.parametrize(
    "timeouts", [{}, {"connect_timeout_s": 1, "answer_timeout_s": 1, "finish_timeout_s": 1}, {"answer_timeout_s": 30}]
)
def test_a_store_with_the_usual_timeouts_or_shorter_ones_has_the_least_limits(timeouts: dict[str, float]) -> None:
    assert limits(a_store(**timeouts)) == limits(None) == (30, 120, 240, 240)


@pytest.mark.parametrize("finish_s", [121, 600, 86_400])
def test_a_finish_has_its_own_timeout_and_the_time_of_the_look_ups(finish_s: float) -> None:
    assert limits(a_store(finish_timeout_s=finish_s)) == (30, 120, 120 + finish_s, 240)


@pytest.mark.parametrize("timeout", ["answer_timeout_s", "connect_timeout_s"])
def test_every_request_of_a_task_has_the_timeout_of_its_store(timeout: str) -> None:
    assert limits(a_store(**{timeout: 90})) == (90, 360, 720, 720)
    assert limits(a_store(**{timeout: 90}, finish_timeout_s=600)) == (90, 360, 960, 720)


def test_the_timeouts_of_a_store_are_scaled_with_the_timers() -> None:
    scaled = TIMERS.scaled(0.5)
    assert limits(a_store(), scaled) == (15, 60, 120, 120)
    assert limits(a_store(finish_timeout_s=600), scaled) == (15, 60, 360, 120)
