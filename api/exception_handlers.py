"""The application's exception handlers: a problem document for every exception."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import psycopg
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match

from api.problems import BadRequest, InternalError, MethodNotAllowed, Unavailable, invalid, path_of, problem_response
from worker.db.pool import UNAVAILABLE
from worker.db.session_settings import POOLER_ADVICE, unexpected_pooler
from worker.errors import NotFound, Refused
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_log = get_logger(__name__)


def install(app: FastAPI) -> None:
    """Install the handlers."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return problem_response(error, request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(_allowed(request))}  # Starlette lists only the methods of the first route
        return problem_response(_from_http(error, request), request, headers)

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(invalid([{**each, "loc": each["loc"][1:]} for each in error.errors()]), request)

    async def no_database(request: Request, error: Exception) -> Response:
        _log.warning("api.database_unavailable", path=request.url.path, error=str(error))
        return problem_response(_database_unavailable(error), request)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    for kind in UNAVAILABLE:
        app.add_exception_handler(kind, no_database)
    app.add_middleware(_LastResort)


def _allowed(request: Request) -> list[str]:
    """Return the methods that the routes at the path of the request have."""
    scopes = ({**request.scope, "method": method} for method in _METHODS)
    routes = request.app.routes
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


class _LastResort:
    """Middleware that refuses a query that is no UTF-8, and responds to an unexpected exception.

    FastAPI would raise the latter again, behind its exception handler; the server would close the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        if not _is_text(scope.get("query_string", b"")):
            refused = BadRequest("the query is not UTF-8", advice="Send the query as UTF-8, percent-encoded.")
            await problem_response(refused, Request(scope))(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            _log.debug("api.client_gone", path=scope.get("path"))  # during its body: a response would have no reader
        except Exception:
            incident = secrets.token_hex(8)
            _log.exception("api.failed", path=scope.get("path"), incident=incident)
            if started or scope["type"] != "http":
                raise
            failure = InternalError("the request failed in the service", extra={"incident": incident})
            await problem_response(failure, Request(scope))(scope, receive, send)


def _is_text(query: bytes) -> bool:
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True


def _database_unavailable(error: Exception) -> Refused:
    if (pooler := unexpected_pooler(error)) is not None:
        return Unavailable(str(pooler), code="unexpected_pooler", advice=POOLER_ADVICE)
    cause = error.__cause__ or error
    if isinstance(cause, (psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)):
        return Unavailable("the database did not answer in time", code="database_busy")
    state = "cannot be reached"
    if isinstance(cause, psycopg.errors.ReadOnlySqlTransaction):
        state = "is read-only, as it is during a failover"
    elif isinstance(cause, psycopg.errors.DiskFull):
        state = "has no room left"
    return Unavailable(
        f"the database {state}",
        code="database_unavailable",
        advice="Send the request again after the time in Retry-After, with the same Idempotency-Key.",
    )


def _from_http(error: HTTPException, request: Request) -> Refused:
    """Return the refusal of a request that has no route."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"there is nothing at {path_of(request)}", advice="See /openapi.json for what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{request.method} is not possible at {path_of(request)}")
    return BadRequest(str(error.detail))
