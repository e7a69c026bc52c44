"""The queries of lists and counts of jobs: a filter (`worker/jobs/filters.py`) and options beside it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from api.problems import UNKNOWN_PARAMETER, invalid
from api.schemas.base import Flag, Integer, QueryParameters, Text
from api.schemas.pagination import Cursor
from worker.errors import Forbidden
from worker.jobs import filters
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.durations import FORM
from worker.jobs.filters import Filter, WrongFilter
from worker.jobs.states import JobState

_TEXT: Mapping[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": filters.TEXT_MAX_CHARS,
    "pattern": r"^[^\x00]*$",
}
_MOMENT: Mapping[str, Any] = {"type": "string", "format": "date-time"}
_DURATION: Mapping[str, Any] = {"type": "string", "pattern": FORM, "examples": ["1h", "7d"]}
_LABEL: Mapping[str, Any] = {**_TEXT, "pattern": r"^[^\x00=:]+[=:][^\x00]*$"}
_FILTER: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "state": (
        {"type": "array", "items": {"type": "string", "enum": list(JobState)}, "maxItems": len(JobState)},
        "Any of these.",
    ),
    "store": (_TEXT, ""),
    "key_prefix": (_TEXT, ""),
    "label.NAME": (
        {"type": "string", "maxLength": filters.TEXT_MAX_CHARS, "pattern": r"^[^\x00]*$"},
        "The value of the label NAME, for any name: `label.order=17`. All of these.",
    ),
    "label": (
        {"type": "array", "items": _LABEL, "maxItems": filters.LABELS_MAX},
        "`name=value` or `name:value`, parted by the first of both; all of these.",
    ),
    "error_code": (_TEXT, "That of the error with which a job is shown."),
    "since": (
        {"anyOf": [_DURATION, _MOMENT]},
        "Created within this time, by the clock of the database, or at this time or later.",
    ),
    "older_than": (_DURATION, "Created longer ago than this, by the clock of the database."),
    "created_from": (_MOMENT, "Created at this time or later."),
    "created_before": (_MOMENT, "Created before this time."),
    "tenant": (_TEXT, "Needs the scope `admin`, unless it is one's own."),
}


class ListOptions(QueryParameters):
    """What a list has beside its filter."""

    order: Annotated[Literal["newest", "oldest"], Field(description="Which jobs come first.")] = "newest"
    cursor: Cursor = None
    limit: Annotated[Integer, Field(ge=1, le=500)] = 50


class CountOptions(QueryParameters):
    """What counts have beside their filter."""

    group_by: Annotated[
        Text,
        Field(
            pattern=r"^(state|store|tenant|error_code|label\.[^\x00]+)$",
            max_length=filters.TEXT_MAX_CHARS,
            description="`state`, `store`, `tenant`, `error_code`, or `label.NAME` for the values of a label.",
        ),
    ] = "state"
    exact: Annotated[
        Flag, Field(description="Count every job, however long it takes; else a sample may be counted.")
    ] = False


_Options = TypeVar("_Options", bound=QueryParameters)


def read_query(query: str, key: ApiKey, options: type[_Options]) -> tuple[Filter, _Options]:
    """Return the filter, restricted to the jobs that the key may read, and the options.

    Raises:
        Forbidden: the filter names another tenant.
        Refused: a parameter is wrong or not known.
    """
    try:
        which, chosen = filters.parse_with_options(query, list(options.model_fields))
        read = options.model_validate(chosen)
    except WrongFilter as wrong:
        errors = [
            {"loc": (each.parameter,), "msg": each.message, "type": UNKNOWN_PARAMETER if each.unknown else "wrong"}
            for each in wrong.mistakes
        ]
        raise invalid(errors) from None
    except ValidationError as error:
        raise invalid(error.errors()) from None
    return of_key(which, key), read


def of_key(which: Filter, key: ApiKey) -> Filter:
    """Return the filter, restricted to the jobs that the key sees.

    Raises:
        Forbidden: the filter names another tenant.
    """
    if which.tenant is not None and not key.sees(which.tenant):
        raise Forbidden("the key lacks the scope admin for another tenant's jobs")
    return which if key.may(Scope.ADMIN) else replace(which, tenant=key.tenant)


def described(options: type[QueryParameters]) -> dict[str, Any]:
    """Return what FastAPI adds to the description of a route: its filter and options, which it reads itself."""
    found = [_parameter(name, schema, text) for name, (schema, text) in _FILTER.items()]
    for name, schema in options.model_json_schema()["properties"].items():
        found.append(_parameter(name, schema, schema.get("description", "")))
    return {"parameters": found}


def _parameter(name: str, schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    about = {"description": text} if text else {}
    return {"name": name, "in": "query", "required": False, "schema": dict(schema), **about}
