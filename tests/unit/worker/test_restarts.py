from __future__ import annotations

from worker.restarts import RestartBackoff


def test_the_pause_doubles_with_each_quick_end_and_has_a_limit() -> None:
    backoff = RestartBackoff()
    assert [backoff.pause_s(1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert {backoff.pause_s(1) for _ in range(2000)} == {15}  # a night of them


def test_a_steady_run_ends_the_row_of_quick_ends() -> None:
    backoff = RestartBackoff()
    assert [backoff.pause_s(ran_s) for ran_s in (1, 1, 40, 40, 1, 1)] == [0.5, 1, 0, 0, 0.5, 1]
