"""What the API returns about the history of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from api.views.base import UtcDateTime
from worker.jobs.states import JobState
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from sqlalchemy import Row


class EventView(BaseModel):
    """Something that happened to a job."""

    id: int
    at: UtcDateTime
    kind: str
    from_state: JobState | None
    to_state: JobState | None
    epoch: int
    actor: str
    cause: dict[str, Any] | None


class EventList(BaseModel):
    """A page of a job's history, oldest first."""

    items: list[EventView]
    next_cursor: str | None


def event_view(row: Row[Any]) -> EventView:
    """Return the view of an event."""
    return EventView.model_validate(row._asdict() | {"cause": redact_json(row.cause)})
