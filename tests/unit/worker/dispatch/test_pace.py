from __future__ import annotations

import pytest

from worker.dispatch.dispatcher import until_used_s


@pytest.mark.parametrize(
    ("waiting", "dispatched", "since_s", "expected_s"),
    [
        (0, 4, 0.02, 0.0),  # every message has a slot: a slot that ends needs the next message at once
        (-8, 0, 3.0, 0.0),
        (10, 7, 0.02, 0.02),
        (10, 14, 0.02, 0.01),
        (10, 1, 0.02, 0.14),
        (10, 0, 0.5, 3.5),  # no message found a slot for half a second: slices take long
    ],
)
def test_the_next_tick_comes_when_most_of_the_backlog_has_a_slot(
    waiting: int, dispatched: int, since_s: float, expected_s: float
) -> None:
    assert until_used_s(waiting=waiting, dispatched=dispatched, since_s=since_s) == pytest.approx(expected_s)
