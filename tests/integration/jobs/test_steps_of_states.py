"""The database refuses a job whose step does not belong to its state."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import psycopg
import pytest

from worker.jobs.states import STEPS, JobState, Step

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase


def test_only_the_steps_of_a_state_can_be_written(db: JobsDatabase) -> None:
    for state, step in product(JobState, Step):
        job = db.enqueue()
        if step in STEPS[state]:
            db.force(job, state, step)
        else:
            with pytest.raises(psycopg.errors.CheckViolation, match="ck_job_step_of_state"):
                db.force(job, state, step)
