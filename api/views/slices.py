"""What the API returns about the slices of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from api.views.base import Bytes, Failure, UtcDateTime
from worker.jobs.states import SliceState
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from sqlalchemy import Row


class SliceView(BaseModel):
    """A contiguous range of the file."""

    number: int
    offset_bytes: Bytes
    size_bytes: Bytes
    state: SliceState
    attempts: Annotated[int, Field(description="Answers of the store that were this slice's own fault.")]
    sends: Annotated[int, Field(description="How often it was begun to be sent.")]
    not_before: UtcDateTime | None
    tag: str | None
    digest: str | None
    error: Failure | None
    done_at: UtcDateTime | None


class SliceList(BaseModel):
    """A page of slices, by number; after success their rows are folded into `summary`."""

    items: list[SliceView]
    summary: dict[str, Any] | None
    next_cursor: str | None


def slice_view(row: Row[Any]) -> SliceView:
    """Return the view of a slice."""
    return SliceView.model_validate(row._asdict() | {"error": redact_json(row.error)})
