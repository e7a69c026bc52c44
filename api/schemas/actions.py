"""Requests for an action on a job: query, bodies, and the person on whose behalf a backend acts."""

from typing import Annotated, Literal

from fastapi import Header, Query
from pydantic import Field

from api.schemas.base import Flag, JsonBody, QueryParameters

REASON_MAX_CHARS = 500
Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=REASON_MAX_CHARS,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$",
        description="Why; the history keeps it. One line.",
    ),
]
PersonHeader = Annotated[
    Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]([ -~]*[!-~])?$")] | None,
    Header(
        alias="Sliceway-Person",
        description="On whose behalf the owner of the key acts, such as a login; ASCII. The history keeps it.",
    ),
]


class _Retry(QueryParameters):
    force: Annotated[Flag, Field(description="Replace what a later job has put there.")] = False


RetryQuery = Annotated[_Retry, Query()]


class ActionBody(JsonBody):
    """What is said of an action."""

    reason: Reason | None = None


class RetryBody(ActionBody):
    """How much of a job a retry keeps."""

    from_: Annotated[
        Literal["missing", "scratch"],
        Field(
            alias="from",
            description="`missing`: what the store may still have is kept. `scratch`: nothing is kept.",
        ),
    ] = "missing"


class PriorityBody(ActionBody):
    """A job's new priority."""

    priority: Annotated[int, Field(ge=0, le=9, description="0 goes first.")]
