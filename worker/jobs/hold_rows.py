"""A hold, as its row has it. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime


class HoldKind(StrEnum):
    """What may be held."""

    QUEUE = "queue"
    STORE = "store"
    TENANT = "tenant"


class Hold(NamedTuple):
    """A hold.

    Attributes:
        kind: what is held.
        name: of the store or tenant; empty for the queue.
        reason: why; None if none was given.
        actor: as the audit names it.
        key_name: of the key.
        person: whom the key's owner has named.
        at: since when.
    """

    kind: HoldKind
    name: str
    reason: str | None
    actor: str
    key_name: str | None
    person: str | None
    at: datetime
