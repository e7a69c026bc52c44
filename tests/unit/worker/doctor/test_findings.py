"""The doctor's finding on a clock."""

from __future__ import annotations

import pytest

from worker.doctor.findings import CLOCK_FAILED_S, CLOCK_NOTED_S, Level, clock


@pytest.mark.parametrize(
    ("off_s", "level", "says"),
    [
        (0.2, Level.OK, "within 1 s"),
        (-CLOCK_NOTED_S, Level.OK, "within 5 s"),
        (CLOCK_NOTED_S + 1, Level.NOTE, "6 s ahead"),
        (-CLOCK_NOTED_S - 1, Level.NOTE, "6 s behind"),
        (CLOCK_FAILED_S + 1, Level.FAILED, "31 s ahead"),
    ],
)
def test_a_clock_that_is_off_is_noted_and_one_that_is_far_off_fails(off_s: float, level: Level, says: str) -> None:
    found = clock("store main", 1000.0, now_s=1000.0 + off_s)
    assert (found.check, found.level, says in found.text) == ("clock against store main", level, True)
    assert (found.advice != "") == (level is not Level.OK)
