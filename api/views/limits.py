"""What the API returns about limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from api.views.base import UtcDateTime
from worker.jobs.cap_rows import CapKind, SetCap
from worker.telemetry.redact import redact_json


class LimitChanged(BaseModel):
    """The limit as it is now."""

    kind: CapKind
    name: str
    max_in_flight: Annotated[int | None, Field(description="Null: there is none.")]
    changed: Annotated[bool, Field(description="False where it was so already.")]


class LimitView(BaseModel):
    """How much a store or a tenant has in flight at once, at most."""

    kind: CapKind
    name: str
    max_in_flight: Annotated[int, Field(description="Steps and slices, over all workers.")]
    reason: str | None
    since: UtcDateTime
    actor: str
    key_name: str | None
    person: str | None


class LimitList(BaseModel):
    """The limits that operators have set."""

    items: list[LimitView]


def limit_view(cap: SetCap) -> LimitView:
    """Return the view of a limit."""
    fields = redact_json({name: getattr(cap, name) for name in ("name", "reason", "actor", "key_name", "person")})
    return LimitView(kind=cap.kind, max_in_flight=cap.max_in_flight, since=cap.at, **fields)
