"""A request for an action: who asks, and the body, which may be left out.

As in `body.py` the key comes first, and the body of a client without one is not read.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.requests import Request

from api.auth import operator
from api.body import SMALL_BYTES, parse, read_if_any
from api.schemas.actions import PersonHeader
from api.schemas.base import JsonBody
from api.state import AppState, app_state_of
from worker.jobs.api_keys import ApiKey
from worker.jobs.commands import Acting
from worker.telemetry.redact import redact

_Body = TypeVar("_Body", bound=JsonBody)


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """The key of a request, the person that it names, its body, and the state of the process."""

    key: ApiKey
    person: str | None
    content: bytes
    app_state: AppState

    def parse(self, model: type[_Body]) -> _Body:
        """Return the body; one that was left out counts as an empty object.

        Raises:
            Refused: it is no JSON, or a field is wrong.
        """
        return parse(model, self.content or b"{}")

    def acting(self, reason: str | None) -> Acting:
        """Return who acts, and why."""
        return Acting(self.key, *(None if text is None else redact(text) for text in (self.person, reason)))


async def _read(request: Request, person: PersonHeader = None) -> ActionRequest:
    key = await operator(request)
    return ActionRequest(key, person, await read_if_any(request, SMALL_BYTES), app_state_of(request))


ActionDep = Annotated[ActionRequest, Depends(_read)]


def body_of(schema: str, *, required: bool = False) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that a route parses itself."""
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference}}}}
