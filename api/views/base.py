"""Types of fields that several views share, and the response that a view becomes."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import to_json
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


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return the response with a view, or plain values, as JSON. FastAPI would do it later, on the event loop."""
    return Response(to_json(content), status, headers, media_type="application/json")
