"""What the API returns about actions on all jobs that match a filter."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.views.base import UtcDateTime
from api.views.jobs import JobView
from worker.jobs.bulk_rows import Action
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from worker.jobs.bulk_rows import BulkAction


class BulkCount(BaseModel):
    """What an action would be done to."""

    count: Annotated[int, Field(description="Give it as `confirm`.")]
    filter: Annotated[str, Field(description="In its canonical form, restricted to what the key sees.")]
    sample: Annotated[list[JobView], Field(description="Some of the jobs, newest first.")]


class RefusedExample(BaseModel):
    """A job that was refused."""

    id: UUID
    message: str


class BulkRefusals(BaseModel):
    """How many jobs were refused with a code."""

    code: str
    count: int
    examples: list[RefusedExample]


class BulkView(BaseModel):
    """An action on all jobs that match a filter, and how far it is."""

    id: UUID
    state: Literal["running", "done", "stopped"]
    action: Action
    filter: Annotated[str, Field(description="With times instead of durations: no job that came later matches.")]
    options: Annotated[dict[str, Any], Field(description="`priority` or `from`, where they were given.")]
    total: Annotated[int, Field(description="How many jobs matched at the confirmation.")]
    done: Annotated[int, Field(description="How many were taken; jobs that match no more are left out.")]
    changed: int
    refused: int
    refusals: Annotated[list[BulkRefusals], Field(description="The most frequent first.")]
    reason: str | None
    actor: str
    key_name: str
    person: str | None
    created_at: UtcDateTime
    updated_at: UtcDateTime
    finished_at: UtcDateTime | None


class BulkList(BaseModel):
    """A page of actions on all jobs that match a filter, newest first."""

    items: list[BulkView]
    next_cursor: Annotated[str | None, Field(description="Give it as `cursor` for the next page; null at the end.")]


def bulk_view(bulk: BulkAction) -> BulkView:
    """Return the view of a bulk action."""
    refusals = sorted(bulk.refusals.items(), key=lambda each: (-each[1]["count"], each[0]))
    row = asdict(bulk)
    texts = redact_json(
        {name: row[name] for name in ("filter", "options", "reason", "actor", "key_name", "person")}
        | {"refusals": [{"code": code, **each} for code, each in refusals]}
    )
    return BulkView.model_validate({**row, **texts})
