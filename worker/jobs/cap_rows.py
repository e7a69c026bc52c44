"""A cap that an operator has set, as its row has it. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime


class CapKind(StrEnum):
    """What may have a cap."""

    STORE = "store"
    TENANT = "tenant"


class SetCap(NamedTuple):
    """How many steps and slices an operator allows at once.

    Attributes:
        kind: of what.
        name: of the store or tenant.
        max_in_flight: so many may be dispatched or worked on at once, over all workers.
        reason: why; None if none was given.
        actor: as the audit names it.
        key_name: of the key.
        person: whom the key's owner has named.
        at: when it was set.
    """

    kind: CapKind
    name: str
    max_in_flight: int
    reason: str | None
    actor: str
    key_name: str | None
    person: str | None
    at: datetime
