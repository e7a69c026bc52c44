"""Requests to limit a store or a tenant."""

from typing import Annotated

from pydantic import Field

from api.schemas.actions import ActionBody

MAX_IN_FLIGHT = 1_000_000


class LimitBody(ActionBody):
    """How much is in flight at once, at most."""

    max_in_flight: Annotated[
        Annotated[int, Field(ge=1, le=MAX_IN_FLIGHT)] | None,
        Field(description="Steps and slices, over all workers; null removes the limit. To stop all, pause it."),
    ]
