from __future__ import annotations

import pytest

from worker.dispatch.dispatcher import TURN_EVERY_MOST_S, TURN_EVERY_S, pace_s


@pytest.mark.parametrize(
    ("waiting", "handed_out", "since_s", "expected_s"),
    [
        (0, 4, 0.02, TURN_EVERY_S),  # every message has a slot: what ends must be followed at once
        (-8, 0, 3.0, TURN_EVERY_S),
        (8, 8, 0.02, TURN_EVERY_S),  # half of them would be gone in 10 ms
        (8, 3, 0.03, 0.04),
        (8, 1, 0.02, TURN_EVERY_MOST_S),  # they last for 160 ms, but something urgent may come
        (8, 0, 0.02, TURN_EVERY_MOST_S),
    ],
)
def test_turns_come_when_half_of_what_waits_has_found_a_slot(
    waiting: int, handed_out: int, since_s: float, expected_s: float
) -> None:
    assert pace_s(waiting=waiting, handed_out=handed_out, since_s=since_s) == pytest.approx(expected_s)
