"""What the API returns about who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.views.base import UtcDateTime
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from sqlalchemy import Row


class AuditView(BaseModel):
    """Something that was done."""

    id: int
    at: UtcDateTime
    action: Annotated[str, Field(description="Such as `job.cancel`, `store.pause`, `key.create`.")]
    what: Annotated[dict[str, Any], Field(description="What was acted on, and with which options.")]
    reason: str | None
    changed: Annotated[int, Field(description="How many the action has changed.")]
    refused: Annotated[int, Field(description="How many it was refused for.")]
    actor: Annotated[str, Field(description="A key; or the operating system's user, or a program, outside the API.")]
    key_id: UUID | None
    key_name: str | None
    tenant: Annotated[str | None, Field(description="Of the key.")]
    person: Annotated[str | None, Field(description="Whom the owner of the key has named.")]


class AuditList(BaseModel):
    """A page of the audit, newest first."""

    items: list[AuditView]
    next_cursor: Annotated[str | None, Field(description="Give it as `cursor` for the next page; null at the end.")]


def audit_view(row: Row[Any]) -> AuditView:
    """Return the view of an entry."""
    return AuditView.model_validate(redact_json(row._asdict() | {"at": None}) | {"at": row.at, "key_id": row.key_id})
