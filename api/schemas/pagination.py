"""Pages of lists: their query, and the opaque cursor of the next page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import Field

from api.schemas.base import Integer, QueryParameters
from worker.errors import Refused

Cursor = Annotated[Annotated[str, Field(max_length=100)] | None, Field(description="`next_cursor` of the page before.")]
_Key = TypeVar("_Key", UUID, int)


class _Page(QueryParameters):
    cursor: Cursor = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 100


PageQuery = Annotated[_Page, Query()]


def encode_cursor(last: UUID | int) -> str:
    """Return the cursor of the page after the one whose last item has this id or number."""
    return urlsafe_b64encode(str(last).encode()).decode().rstrip("=")


def decode_job_cursor(cursor: str | None) -> UUID | None:
    """Return the job after which a page begins; None for the first page.

    Raises:
        Refused: ``bad_cursor``.
    """
    return None if cursor is None else _decode(cursor, UUID)


def decode_number_cursor(cursor: str | None) -> int:
    """Return the number after which a page begins.

    Raises:
        Refused: ``bad_cursor``.
    """
    number = -1 if cursor is None else _decode(cursor, int)
    if not -1 <= number < 2**63:
        raise _bad_cursor()
    return number


def _decode(cursor: str, kind: Callable[[str], _Key]) -> _Key:
    try:
        return kind(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
    except ValueError:
        raise _bad_cursor() from None


def _bad_cursor() -> Refused:
    return Refused("cursor is none of ours", code="bad_cursor", advice="Use next_cursor of the page before.")
