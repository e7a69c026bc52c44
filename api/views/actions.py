"""What the API returns about an action on a job."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.views.base import UtcDateTime
from worker.jobs.states import JobState


class JobMoved(BaseModel):
    """The state that an action has led to."""

    id: UUID
    state: JobState


class JobChanged(JobMoved):
    """The state of a job after an action."""

    changed: Annotated[
        bool, Field(description="False where the job was so already, or the action is not for its state.")
    ]


class HeldBackView(BaseModel):
    """What holds a job back beside a time."""

    model_config = ConfigDict(from_attributes=True)

    by: Literal["job_paused", "store_unusable", "store_paused", "tenant_paused", "queue_paused"]
    reason: str | None
    since: UtcDateTime


class JobStarted(JobChanged):
    """The state of a job that does not wait for a time any more, and what holds it back nevertheless."""

    held_back: list[HeldBackView]
