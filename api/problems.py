"""Problem documents (RFC 9457): every refusal has one, with a stable `code` and the next step."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from worker.errors import Refused
from worker.telemetry.redact import redact, redact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
ERRORS_LISTED = 20
"""How many wrong fields of a request are listed. The others are only counted, so that the response stays small."""
UNKNOWN_PARAMETER = "unknown_parameter"
"""The type of an error whose message says which names are known; pydantic's own `extra_forbidden` does not."""
_MAX_FIELD_CHARS = 100
_RETRY_AFTER_S: Mapping[int, int] = {429: 5, 503: 2}
_PATH_CHARS = "/!$&'()*+,;=:@~"
"""What a path may contain unescaped (RFC 3986), beside letters, digits and `-._`."""


class WrongField(BaseModel):
    """A field or parameter that is wrong."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request was refused. Further members say what stood in the way, such as `job_id`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable: programs compare it."""
    advice: str
    """The next step."""
    instance: str | None = None
    errors: Annotated[
        list[WrongField],
        Field(description="The wrong fields, of `invalid` and `unknown_field`.", max_length=ERRORS_LISTED),
    ] = []
    errors_omitted: Annotated[int, Field(description="How many more are wrong than `errors` lists.", ge=0)] = 0


class Unauthenticated(Refused):
    """The request has no key, or one that is not valid."""

    status = 401
    code = "unauthenticated"
    advice = "Send `Authorization: Bearer <key>`; `sliceway keys create` makes one."


class BadJson(Refused):
    """The body is no JSON."""

    status = 400
    code = "bad_json"
    advice = "Send a JSON object in UTF-8."


class BadRequest(Refused):
    """The request cannot be read."""

    status = 400
    code = "bad_request"


class MethodNotAllowed(Refused):
    """The path has routes, but none for this method."""

    status = 405
    code = "method_not_allowed"
    advice = "Use a method that Allow names."


class TooLarge(Refused):
    """The body is larger than its limit."""

    status = 413
    code = "too_large"
    advice = "Send less at once; up to 1,000 jobs go in a batch."


class UnsupportedMediaType(Refused):
    """The body has another media type than JSON."""

    status = 415
    code = "unsupported_media_type"
    advice = "Send `Content-Type: application/json`."


class Unavailable(Refused):
    """The service cannot serve the request now; the client can send it again later."""

    status = 503
    code = "unavailable"
    advice = "Send the request again after the time in Retry-After."


class InternalError(Refused):
    """The service failed."""

    status = 500
    code = "internal"
    advice = "Look for the incident in the service's log; the request may be sent again with the same Idempotency-Key."


_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
_AUTHENTICATE = {"WWW-Authenticate": {"description": "How to show a key.", "schema": {"type": "string"}}}
_HEADERS: Mapping[int, dict[str, Any]] = {401: _AUTHENTICATE, 429: _RETRY_AFTER, 503: _RETRY_AFTER}


def problem_responses(*statuses: int, validates: bool = True) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route: its problem documents, with those that every route has.

    Args:
        statuses: of the problems of this route.
        validates: whether the request has fields or parameters that may be wrong: 422.
    """
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted({*statuses, 400, 408, 414, 431, 500, *([422] if validates else [])})
    }


def document(refused: Refused, instance: str | None = None) -> dict[str, Any]:
    """Return the problem document."""
    members: dict[str, Any] = {
        "type": f"urn:sliceway:problem:{refused.code}",
        "title": refused.code.replace("_", " ").capitalize(),
        "status": refused.status,
        "detail": redact(refused.message),
        "code": refused.code,
        "advice": refused.advice,
    }
    if instance is not None:
        members["instance"] = redact(instance)
    return {**members, **redact_json(refused.extra)}


def problem_response(refused: Refused, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document as a response, with the headers of its status."""
    content = json.dumps(document(refused, path_of(request)))
    more = headers_of(refused) | dict(headers or {})
    return Response(content, status_code=refused.status, headers=more, media_type=MEDIA_TYPE)


def headers_of(refused: Refused) -> dict[str, str]:
    """Return the headers of the refusal's status."""
    more = {}
    if refused.status in _RETRY_AFTER_S:
        more["Retry-After"] = str(_RETRY_AFTER_S[refused.status])
    if refused.status == HTTPStatus.UNAUTHORIZED:
        more["WWW-Authenticate"] = "Bearer"
    return more


def invalid(errors: Sequence[Mapping[str, Any]], unlisted: int = 0) -> Refused:
    """Return the refusal of a request with wrong fields; it lists the first `ERRORS_LISTED`.

    Args:
        errors: as pydantic lists them; locations begin with the field.
        unlisted: how many wrong fields there are beside these.
    """
    fields = [
        {"field": _field_name(error["loc"]) or "body", "message": error["msg"].removeprefix("Value error, ")}
        for error in errors[:ERRORS_LISTED]
    ]
    omitted = len(errors) - len(fields) + unlisted
    first = fields[0]
    code = "unknown_field" if errors[0]["type"] in {"extra_forbidden", UNKNOWN_PARAMETER} else "invalid"
    what = (
        "is not known"
        if errors[0]["type"] == "extra_forbidden"
        else first["message"][:1].lower() + first["message"][1:]
    )
    extra: dict[str, object] = {"errors": fields} | ({"errors_omitted": omitted} if omitted else {})
    return Refused(f"{first['field']}: {what}", code=code, extra=extra)


def _field_name(location: Sequence[object]) -> str:
    """Return the location of an error, in one line of bounded length: a client chooses the names of unknown fields."""
    name = ".".join(map(str, location))
    if len(name) > _MAX_FIELD_CHARS:
        name = name[: _MAX_FIELD_CHARS - 1] + "…"
    return name if name.isprintable() else repr(name)[1:-1]


def path_of(request: Request) -> str:
    """Return the path that the client requested, percent-encoded, so that it is one line."""
    root, path = request.scope.get("root_path", ""), request.url.path
    return quote(path if path.startswith(f"{root}/") else root + path, safe=_PATH_CHARS)
