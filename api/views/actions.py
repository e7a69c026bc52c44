"""What the API returns about an action on a job."""

from uuid import UUID

from pydantic import BaseModel

from worker.jobs.states import JobState


class JobMoved(BaseModel):
    """The state that an action has led to."""

    id: UUID
    state: JobState
