"""What a job waits for beyond its own row: its store's breaker. As SQL, for `queries`."""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, func, select

from worker.jobs.models import Breaker, Job, Slice
from worker.jobs.states import SliceState, Step

_SENDS = exists().where(Slice.job_id == Job.id, Slice.state == SliceState.SENDING).correlate(Job)
_BEHIND = (Breaker.store == Job.store, Job.finished_at.is_(None), Job.step != Step.RUNNING, ~_SENDS)

HELD_BACK = (
    select(func.jsonb_build_object("error", Breaker.error, "since", Breaker.opened_at))
    .where(*_BEHIND)
    .correlate(Job)
    .scalar_subquery()
    .label("held_back")
)
"""Why the job's store is unusable and since when; NULL where it is usable, or the job has something under way."""


def shown_code() -> ColumnElement[str]:
    """Return the code of the error that a job is reported with: its breaker's, if it waits behind one, else its own."""
    breakers = select(Breaker.error["code"].astext).where(*_BEHIND).correlate(Job).scalar_subquery()
    return func.coalesce(breakers, Job.error["code"].astext)
