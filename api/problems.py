"""Every refusal as a problem document (RFC 9457) with a stable `code` and the next step."""

from __future__ import annotations

import json
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import psycopg
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from worker.db import UNAVAILABLE
from worker.errors import NotFound, Refused
from worker.log import get_log, redact, redact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S: Mapping[int, int] = {429: 5, 503: 2}
_log = get_log(__name__)


class Problem(BaseModel):
    """Why a request was refused. Further members say what stood in the way, such as `job_id`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable; what a program should look at."""
    advice: str
    """What to do next."""
    instance: str | None = None


class Unauthenticated(Refused):
    """No key, or none that is good."""

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
    """There is something at this address, but not for this method."""

    status = 405
    code = "method_not_allowed"
    advice = "Use a method that Allow names."


class TooLarge(Refused):
    """The body is larger than what is taken."""

    status = 413
    code = "too_large"
    advice = "Send less at once; up to 1,000 jobs go in a batch."


class UnsupportedMediaType(Refused):
    """The body says that it is something else than JSON."""

    status = 415
    code = "unsupported_media_type"
    advice = "Send `Content-Type: application/json`."


class Unavailable(Refused):
    """Not now; the same request may be sent again later."""

    status = 503
    code = "unavailable"
    advice = "Send the request again after the time in Retry-After."


class Failed(Refused):
    """A fault of ours."""

    status = 500
    code = "internal"
    advice = "Look for the incident in the service's log; the request may be sent again with the same Idempotency-Key."


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may refuse so, beside what any route may."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({*statuses, 422, 500})
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
        members["instance"] = instance
    return {**members, **redact_json(refused.extra)}


def answer(refused: Refused, request: Request, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem document as a response, with the headers that belong to its status."""
    more = dict(headers or {})
    if refused.status in _RETRY_AFTER_S:
        more.setdefault("Retry-After", str(_RETRY_AFTER_S[refused.status]))
    if refused.status == HTTPStatus.UNAUTHORIZED:
        more.setdefault("WWW-Authenticate", "Bearer")
    content = json.dumps(document(refused, request.url.path))
    return Response(content, status_code=refused.status, headers=more, media_type=MEDIA_TYPE)


def invalid(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """Return the refusal of a request whose fields are wrong, naming them all.

    Args:
        errors: as pydantic lists them; locations begin with the field.
    """
    fields = [
        {"field": ".".join(map(str, error["loc"])) or "body", "message": error["msg"].removeprefix("Value error, ")}
        for error in errors
    ]
    first = fields[0]
    code = "unknown_field" if errors[0]["type"] == "extra_forbidden" else "invalid"
    what = "is not known" if code == "unknown_field" else first["message"][:1].lower() + first["message"][1:]
    return Refused(f"{first['field']}: {what}", code=code, extra={"errors": fields})


def install(app: FastAPI) -> None:
    """Let the application answer every failure with a problem document."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return answer(error, request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(_from_http(error, request), request, error.headers)

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(invalid([{**each, "loc": each["loc"][1:]} for each in error.errors()]), request)

    async def no_database(request: Request, error: Exception) -> Response:
        _log.warning("api.database_unavailable", path=request.url.path, error=str(error))
        return answer(_database_unavailable(error), request)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, no_database)
    app.add_middleware(_LastResort)


class _LastResort:
    """Answers what nobody foresaw; an exception handler would pass it on to the server, which drops the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            incident = secrets.token_hex(8)
            _log.exception("api.failed", path=scope.get("path"), incident=incident)
            if began or scope["type"] != "http":
                raise
            failure = Failed("the request failed in the service", extra={"incident": incident})
            await answer(failure, Request(scope))(scope, receive, send)


def _database_unavailable(error: Exception) -> Refused:
    cause = error.__cause__ or error
    if isinstance(cause, (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)):
        return Unavailable("the database did not answer in time", code="database_busy")
    what = "cannot be reached"
    if isinstance(cause, psycopg.errors.ReadOnlySqlTransaction):
        what = "is read-only, as it is during a failover"
    elif isinstance(cause, psycopg.errors.DiskFull):
        what = "has no room left"
    return Unavailable(
        f"the database {what}",
        code="database_unavailable",
        advice="Send the request again after the time in Retry-After, with the same Idempotency-Key.",
    )


def _from_http(error: HTTPException, request: Request) -> Refused:
    """Return the refusal of a request that no route takes."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"there is nothing at {request.url.path}", advice="See /openapi.json for what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{request.method} is not possible at {request.url.path}")
    return BadRequest(str(error.detail))
