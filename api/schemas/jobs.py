"""What comes in as JSON, and how it is refused."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import from_json

from api.problems import ERRORS_LISTED, BadJson, TooLarge, invalid
from worker.errors import NotSupported, Refused
from worker.jobs.admission import JobSpec
from worker.protocols.spec import (
    ATTRIBUTES_MAX_CHARS,
    BATCH_MAX_JOBS,
    LABEL_KEY_MAX_CHARS,
    LABEL_VALUE_MAX_CHARS,
    LABELS_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

RETRY_FOR_MAX_S = 30 * 86_400
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION = r"^[0-9]{1,7}[smhd]$"
_NO_NUL = r"^[^\x00]*$"  # what a text column cannot hold
_SOURCES_TO_COME = ("url", "body")


def duration_s(value: object, most_s: int) -> int:
    """Return the seconds of `90s`, `15m`, `24h` or `7d`.

    Raises:
        ValueError: it is none, or longer than ``most_s``.
    """
    if isinstance(value, str) and re.fullmatch(DURATION, value):
        seconds = int(value[:-1]) * _UNITS_S[value[-1]]
        if seconds <= most_s:
            return seconds
    raise ValueError(f"must be a number and s, m, h or d, such as '30s' or '24h', of at most {most_s} seconds")


Text = Annotated[str, Field(pattern=_NO_NUL)]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
RetryFor = Annotated[
    int,
    BeforeValidator(partial(duration_s, most_s=RETRY_FOR_MAX_S)),
    WithJsonSchema({"type": "string", "pattern": DURATION, "examples": ["24h", "90m"]}),
]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FileSource(_Given):
    """A file below a root that the workers have."""

    kind: Literal["file"]
    root: Annotated[Text, Field(min_length=1, max_length=255)]
    path: Annotated[Text, Field(min_length=1, max_length=4096, description="Relative to the root.")]


class JobRequest(_Given):
    """A file to upload."""

    source: FileSource
    store: Annotated[Text, Field(min_length=1, max_length=255)]
    key: Annotated[Text, Field(min_length=1, max_length=1024, description="Where the object goes.")]
    overwrite: Annotated[bool, Field(description="Whether an object that is there may be replaced.")] = False
    slice_size: Annotated[int | None, Field(description="Bytes; one of the sizes of the store's protocol.")] = None
    verify: Literal["auto", "size", "slice", "file"] = "auto"
    priority: Annotated[int, Field(ge=0, le=9, description="0 goes first.")] = 5
    attributes: Annotated[Annotated[Text, Field(max_length=ATTRIBUTES_MAX_CHARS)] | None, Field()] = None
    labels: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=LABEL_KEY_MAX_CHARS, pattern=r"^[^\x00:]*$")],
            Annotated[Text, Field(max_length=LABEL_VALUE_MAX_CHARS)],
        ],
        Field(max_length=LABELS_MAX, default_factory=dict),
    ]
    retry_for: Annotated[
        RetryFor | None, Field(description="Time in failure after which the job fails; at most 30 days.")
    ] = None
    callback_url: Annotated[None, Field(description="Not served yet.")] = None

    def job_spec(self, idempotency_key: str | None) -> JobSpec:
        """Return what is asked for, in the words of the service."""
        return JobSpec(
            root=self.source.root,
            path=self.source.path,
            store=self.store,
            key=self.key,
            overwrite=self.overwrite,
            slice_bytes=self.slice_size,
            verify=self.verify,
            priority=self.priority,
            attributes=self.attributes,
            labels=self.labels,
            retry_for_s=self.retry_for,
            idempotency_key=idempotency_key,
            digest=None if idempotency_key is None else self._digest(),
        )

    def _digest(self) -> bytes:
        """Return the SHA-256 of what was asked for; a default is the same given and left out."""
        asked = self.model_dump(exclude_defaults=True, exclude={"idempotency_key"})
        return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).digest()


class BatchItem(JobRequest):
    """A file to upload, as one of many."""

    idempotency_key: IdempotencyKey | None = None


class _GoodBatch(_Given):
    jobs: Annotated[list[BatchItem], Field(min_length=1, max_length=BATCH_MAX_JOBS)]


class BatchRequest(_Given):
    """Many files to upload; each is judged by itself."""

    jobs: Annotated[
        list[Any],
        Field(min_length=1, max_length=BATCH_MAX_JOBS, description="Each a BatchItem; others are refused singly."),
    ]


_Given_ = TypeVar("_Given_", bound=_Given)
_MOST_COMMAS = 20_000
"""A body with more has its unknown fields counted before it is validated: pydantic keeps every error, 1.5 KB each."""
_QUOTE = ord('"')
_MOST_VALUES = 60_000
"""1,000 jobs with every field and label have 48,002. Nothing else runs in the process while a body is parsed: 600,000
unknown fields took 0.7 s."""
_STRING_OR_SEPARATOR = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)
"""Possessive, and a string that does not end goes to the end of the body: no byte is looked at twice."""
_KNOWN_OF_SOURCE = frozenset(FileSource.model_fields)


def parse(kind: type[_Given_], body: bytes) -> _Given_:
    """Return the body as what it should be.

    Raises:
        BadJson: it is no JSON.
        TooLarge: it has more values than any request needs.
        Refused: a field is wrong; the first ones are named.
        NotSupported: a field asks for what this release does not serve.
    """
    _check_values(body)
    if body.count(b",") > _MOST_COMMAS:
        return _validated(kind, _read(body))
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def parse_batch(body: bytes) -> Sequence[BatchItem | Refused]:
    """Return each item of a batch, or why it is refused.

    Raises:
        Refused: as `parse`, where it is no batch at all.
    """
    _check_values(body)
    if body.count(b",") <= _MOST_COMMAS:
        try:
            return _GoodBatch.model_validate_json(body).jobs  # in one go, as long as nothing is wrong
        except ValidationError:
            pass
    return [_parse_item(item) for item in parse(BatchRequest, body).jobs]


def _parse_item(item: object) -> BatchItem | Refused:
    try:
        return _validated(BatchItem, item)
    except Refused as refused:
        return refused


def _check_values(body: bytes) -> None:
    """Refuse a body with too many values: each is the first of its array or object, or follows a comma."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") <= _MOST_VALUES:
        return
    values = 0
    for match in _STRING_OR_SEPARATOR.finditer(body):
        values += body[match.start()] != _QUOTE
        if values > _MOST_VALUES:
            raise TooLarge(f"the body has more than {_MOST_VALUES} values")


def _read(body: bytes) -> object:
    try:
        return from_json(body, cache_strings="none")
    except ValueError as error:
        raise BadJson(f"the body is no JSON: {error}") from None


def _validated(kind: type[_Given_], given: object) -> _Given_:
    """Return what was given as what it should be; of unknown fields only some are shown to pydantic."""
    given, unlisted = _bounded(given, frozenset(kind.model_fields))
    if isinstance(given, dict):
        source, unlisted_of_source = _bounded(given.get("source"), _KNOWN_OF_SOURCE)
        if unlisted_of_source:
            given, unlisted = {**given, "source": source}, unlisted + unlisted_of_source
        labels = given.get("labels")
        if isinstance(labels, dict) and len(labels) > LABELS_MAX:
            wrong = {
                "loc": ("labels",),
                "type": "too_long",
                "msg": f"Must have at most {LABELS_MAX}, not {len(labels)}",
            }
            raise invalid([wrong], unlisted)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error, unlisted) from None


def _bounded(given: object, known: frozenset[str]) -> tuple[object, int]:
    """Return what was given with at most `ERRORS_LISTED` unknown fields, and how many were left out."""
    if not isinstance(given, dict) or len(given) <= ERRORS_LISTED:
        return given, 0
    unknown = [name for name in given if name not in known]
    if len(unknown) <= ERRORS_LISTED:
        return given, 0
    kept = known.union(unknown[:ERRORS_LISTED])
    return {name: given[name] for name in given if name in kept}, len(unknown) - ERRORS_LISTED


def _refusal(error: ValidationError, unlisted: int = 0) -> Refused:
    errors = error.errors(include_url=False, include_context=False)
    if errors[0]["type"] == "json_invalid":
        return BadJson(f"the body is no JSON: {errors[0]['msg'].removeprefix('Invalid JSON: ')}")
    for each in errors:
        if each["loc"] == ("source", "kind") and each["input"] in _SOURCES_TO_COME:
            return NotSupported(
                f"source.kind {each['input']!r} is not served yet", advice="Put the file below a root and name it."
            )
        if each["loc"] == ("callback_url",):
            return NotSupported("callback_url is not served yet", advice="Leave it out; GET the job with ?wait=30s.")
    return invalid(errors, unlisted)
