"""What the API returns about holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.views.base import UtcDateTime
from worker.jobs.hold_rows import Hold, HoldKind
from worker.telemetry.redact import redact_json


class HoldChanged(BaseModel):
    """What is held now."""

    kind: HoldKind
    name: Annotated[str, Field(description="Of the store or tenant; empty for the queue.")]
    paused: bool
    changed: Annotated[bool, Field(description="False where it was so already.")]


class HoldView(BaseModel):
    """A store, a tenant or the queue of which nothing new is dispatched."""

    model_config = ConfigDict(from_attributes=True)

    kind: HoldKind
    name: Annotated[str, Field(description="Of the store or tenant; empty for the queue.")]
    reason: str | None
    since: UtcDateTime
    actor: str
    key_name: str | None
    person: str | None


class HoldList(BaseModel):
    """What is held."""

    items: list[HoldView]


def hold_view(hold: Hold) -> HoldView:
    """Return the view of a hold."""
    fields = redact_json({name: getattr(hold, name) for name in ("name", "reason", "actor", "key_name", "person")})
    return HoldView(kind=hold.kind, since=hold.at, **fields)
