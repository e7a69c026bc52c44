"""The body of a request that enqueues: read within its limit, with the key that it came with, and parsed.

Body and key are one dependency, not two: each dependency costs FastAPI as much as the validation of the body.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from api.auth import submitter
from api.problems import ERRORS_LISTED, BadJson, TooLarge, UnsupportedMediaType, invalid
from api.schemas import sources
from api.schemas.base import JsonBody
from api.schemas.jobs import BatchItem, BatchRequest, ValidBatch
from api.state import AppState, app_state_of
from worker.errors import NotSupported, Refused
from worker.jobs.api_keys import ApiKey
from worker.protocols.spec import BATCH_MAX_BYTES, LABELS_MAX, REQUEST_MAX_BYTES
from worker.telemetry.tracing import current_traceparent, parsed_traceparent

_MAX_COMMAS = 20_000
"""Of a body with more, the unknown fields are counted before validation: pydantic keeps every error, 1.5 KB each."""
_MAX_VALUES = 60_000
"""1,000 jobs with every field and label have 49,002. The process does nothing else while it parses a body: 600,000
unknown fields took 0.7 s."""
SMALL_BYTES = 16 * 1024
"""Up to this size a body is parsed on the event loop: a thread would cost the request more."""
LARGE_BYTES = 256 * 1024
"""A larger body waits until the large bodies before it have been parsed."""
_QUOTE = ord('"')
_STRING_OR_SEPARATOR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)
"""Possessive, and a string without an end extends to the end of the body: no byte is read twice."""
_Body = TypeVar("_Body", bound=JsonBody)


@dataclass(frozen=True, slots=True)
class AuthenticatedBody:
    """A body, the key and the trace that it came with, and the state of the process."""

    content: bytes
    key: ApiKey
    app_state: AppState
    traceparent: str | None


def _at_most(max_bytes: int) -> Callable[[Request], Awaitable[AuthenticatedBody]]:
    async def read(request: Request) -> AuthenticatedBody:
        key = await submitter(request)  # first: the body of a client without a key is not read
        return AuthenticatedBody(await _read(request, max_bytes), key, app_state_of(request), _traceparent(request))

    return read


def _traceparent(request: Request) -> str | None:
    """Return the trace of this process's own span if it is traced, else that of the one header."""
    if (current := current_traceparent()) is not None:
        return current
    given = request.headers.getlist("traceparent")
    return parsed_traceparent(given[0]) if len(given) == 1 else None


async def read_if_any(request: Request, max_bytes: int) -> bytes:
    """Return the body of a request that needs none; what the head says of the type of no body does not matter.

    Raises:
        UnsupportedMediaType: there is one, and it is no JSON.
        TooLarge: it is larger than ``max_bytes``.
    """
    content = await _pieces(request, max_bytes)
    if content:
        _check_media_type(request)
    return content


async def _read(request: Request, max_bytes: int) -> bytes:
    _check_media_type(request)
    return await _pieces(request, max_bytes)


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"the body is {media_type}, not application/json")


async def _pieces(request: Request, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_bytes:
            raise TooLarge(f"the body is larger than {max_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


JobBody = Annotated[AuthenticatedBody, Depends(_at_most(REQUEST_MAX_BYTES))]
BatchBody = Annotated[AuthenticatedBody, Depends(_at_most(BATCH_MAX_BYTES))]


def parse(model: type[_Body], body: bytes) -> _Body:
    """Return the body as an instance of its model.

    Raises:
        BadJson: it is no JSON.
        TooLarge: it has more values than any request needs.
        Refused: fields are wrong; the error lists the first ones.
        NotSupported: a field has a value that this release does not serve.
    """
    _check_values(body)
    if body.count(b",") > _MAX_COMMAS:
        return _validated(model, _from_json(body))
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def parse_batch(body: bytes) -> Sequence[BatchItem | Refused]:
    """Return each item of a batch, or its refusal.

    Raises:
        Refused: as `parse`, if the body is no batch.
    """
    _check_values(body)
    if body.count(b",") <= _MAX_COMMAS:
        try:
            return ValidBatch.model_validate_json(body).jobs  # all at once, unless a field is wrong
        except ValidationError:
            pass
    return [_parse_item(item) for item in parse(BatchRequest, body).jobs]


def _parse_item(item: object) -> BatchItem | Refused:
    try:
        return _validated(BatchItem, item)
    except Refused as refused:
        return refused


def _check_values(body: bytes) -> None:
    """Refuse a body with too many values: each value is the first of its array or object, or follows a comma."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") <= _MAX_VALUES:
        return
    values = 0
    for match in _STRING_OR_SEPARATOR.finditer(body):
        values += body[match.start()] != _QUOTE
        if values > _MAX_VALUES:
            raise TooLarge(f"the body has more than {_MAX_VALUES} values")


def _from_json(body: bytes) -> object:
    try:
        return from_json(body, cache_strings="none")
    except ValueError as error:
        raise BadJson(f"the body is no JSON: {error}") from None


def _validated(model: type[_Body], value: object) -> _Body:
    """Return the value as an instance of its model; pydantic gets only the first unknown fields."""
    value, unlisted = _bounded(value, frozenset(model.model_fields))
    if isinstance(value, dict):
        source, unlisted_of_source = _bounded(value.get("source"), sources.KNOWN_FIELDS)
        if unlisted_of_source:
            value, unlisted = {**value, "source": source}, unlisted + unlisted_of_source
        labels = value.get("labels")
        if isinstance(labels, dict) and len(labels) > LABELS_MAX:
            message = f"Must have at most {LABELS_MAX}, not {len(labels)}"
            wrong = {"loc": ("labels",), "type": "too_long", "msg": message}
            raise invalid([wrong], unlisted)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error, unlisted) from None


def _bounded(value: object, known: frozenset[str]) -> tuple[object, int]:
    """Return the value with at most `ERRORS_LISTED` unknown fields, and the number of those that were left out."""
    if not isinstance(value, dict) or len(value) <= ERRORS_LISTED:
        return value, 0
    unknown = [name for name in value if name not in known]
    if len(unknown) <= ERRORS_LISTED:
        return value, 0
    kept = known.union(unknown[:ERRORS_LISTED])
    return {name: value[name] for name in value if name in kept}, len(unknown) - ERRORS_LISTED


def _refusal(error: ValidationError, unlisted: int = 0) -> Refused:
    errors = error.errors(include_url=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return BadJson(f"the body is no JSON: {errors[0]['msg'].removeprefix('Invalid JSON: ')}")
    for each in errors:
        if each["loc"] == ("source", "kind") and each["input"] in sources.PLANNED_KINDS:
            return NotSupported(
                f"source.kind {each['input']!r} is not served yet", advice="Put the file below a root and name it."
            )
        if each["loc"] == ("callback_url",):
            return NotSupported("callback_url is not served yet", advice="Leave it out; GET the job with ?wait=30s.")
    return invalid(errors, unlisted)
