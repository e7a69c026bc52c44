"""Types of fields that several views share, and the response that a view becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

Bytes = Annotated[int, Field(ge=0)]
UtcDateTime = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class Failure(BaseModel):
    """What went wrong last."""

    code: str
    message: str
    advice: str | None = None
    at: str | None = None
    answer: Annotated[str | None, Field(description="The store's own words.")] = None


def json_response(view: BaseModel) -> Response:
    """Return the response with the view as JSON. A route calls it in its thread, so that the event loop does not."""
    return Response(view.model_dump_json(), media_type="application/json")
