"""A bulk action, as its row has it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from worker.jobs.documents import JsonObject


class Action(StrEnum):
    """What may be done to all jobs of a filter."""

    RETRY = "retry"
    CANCEL = "cancel"
    ABANDON = "abandon"
    PAUSE = "pause"
    RESUME = "resume"
    PRIORITY = "priority"
    START = "start"


class RefusedJob(TypedDict):
    """A job that was refused."""

    id: str
    message: str


class Refusals(TypedDict):
    """What `bulk_action.refusals` keeps of a code."""

    count: int
    examples: list[RefusedJob]


@dataclass(frozen=True, slots=True)
class BulkAction:
    """A bulk action: what was confirmed, by whom, and how far it is.

    Attributes:
        tenant: the one whose jobs it may touch; None: any.
        filter: in its canonical form.
        options: of the action: `priority` or `from`.
        key_tenant: of the key that has confirmed it.
        refusals: by code.
        cursor: the next batch has older jobs than this; None before the first.
    """

    id: UUID
    tenant: str | None
    action: Action
    filter: str
    options: JsonObject
    actor: str
    key_id: UUID
    key_name: str
    key_tenant: str
    person: str | None
    reason: str | None
    state: str
    total: int
    done: int
    changed: int
    refused: int
    refusals: dict[str, Refusals]
    cursor: UUID | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the columns of the table."""
        return cls(**{**row, "action": Action(row["action"])})
