"""The progress of a job."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.views.jobs import progress_of
from worker.jobs.queries import InFlight
from worker.jobs.states import JobState


def progress(size_bytes: int | None, in_flight: int = 0, done: int = 0, state: JobState = JobState.QUEUED) -> Any:
    row: Any = SimpleNamespace(state=state, bytes_done=done, slices_total=None, slices_left=None)
    return progress_of(row, InFlight(size_bytes, 0, in_flight))


@pytest.mark.parametrize(
    ("size_bytes", "in_flight", "done", "percent"),
    [(None, 0, 0, None), (1000, 0, 0, 0.0), (1000, 400, 0, 40.0), (1000, 400, 600, 99.9), (0, 0, 0, 0.0)],
)
def test_a_queued_job_has_a_percentage_as_soon_as_its_size_is_known(
    size_bytes: int | None, in_flight: int, done: int, percent: float | None
) -> None:
    result = progress(size_bytes, in_flight, done)
    assert (result["size_bytes"], result["percent"]) == (size_bytes, percent)


def test_a_job_is_at_100_percent_only_after_it_has_succeeded() -> None:
    assert progress(0, state=JobState.SUCCEEDED)["percent"] == 100.0
    assert progress(0, state=JobState.INITIALIZING)["percent"] == 0.0
