from __future__ import annotations

import pytest

from worker.dispatch.dispatcher import half_s


@pytest.mark.parametrize(
    ("waiting", "handed_out", "since_s", "expected_s"),
    [
        (0, 4, 0.02, 0.0),  # every message has a slot: what ends must be followed at once
        (-8, 0, 3.0, 0.0),
        (8, 8, 0.02, 0.01),
        (8, 3, 0.03, 0.04),
        (8, 1, 0.02, 0.08),
        (8, 0, 0.5, 2.0),  # nothing found a slot for half a second: slices take long
    ],
)
def test_turns_come_when_half_of_what_waits_has_found_a_slot(
    waiting: int, handed_out: int, since_s: float, expected_s: float
) -> None:
    assert half_s(waiting=waiting, handed_out=handed_out, since_s=since_s) == pytest.approx(expected_s)
