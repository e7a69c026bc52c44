"""Base classes and types of fields that requests share; each type accepts its documented form and nothing else."""

import re
from functools import partial
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MAX_RETRY_FOR_S = 30 * 86_400
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = r"^[0-9]{1,7}[smhd]$"
_DATE_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"


class JsonBody(BaseModel):
    """A JSON object of a request's body; an unknown field is refused, and no type is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class QueryParameters(BaseModel):
    """The query of a request; an unknown name is refused, since a misspelt filter would match everything."""

    model_config = ConfigDict(extra="forbid")


def duration_s(value: object, max_s: int) -> int:
    """Return the seconds of `90s`, `15m`, `24h` or `7d`.

    Raises:
        ValueError: it has another form, or is longer than ``max_s``.
    """
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        seconds = int(value[:-1]) * _UNITS_S[value[-1]]
        if seconds <= max_s:
            return seconds
    raise ValueError(f"must be a number and s, m, h or d, such as '30s' or '24h', of at most {max_s} seconds")


def _only(form: str, message: str) -> BeforeValidator:
    """Return a validator that refuses a text of another form; pydantic would convert some of them."""
    pattern = re.compile(form)

    def check(value: object) -> object:
        if isinstance(value, str) and not pattern.fullmatch(value):
            raise ValueError(message)
        return value

    return BeforeValidator(check)


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # a text column cannot hold NUL
FilterText = Annotated[Text, Field(min_length=1, max_length=1024)]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
DateTime = Annotated[
    AwareDatetime,  # as in RFC 3339; pydantic: also seconds since 1970, a time without seconds
    _only(_DATE_TIME, "must be a date and time with seconds and an offset, such as 2026-01-31T12:00:00Z"),
]
Integer = Annotated[int, _only("0|-?[1-9][0-9]{0,18}", "must be an integer")]  # pydantic: also `1.0`, `1_0`, `+1`, ` 1`
Flag = Annotated[bool, _only("true|false", "must be true or false")]  # pydantic: also `yes`, `on`, `1`
RetryFor = Annotated[
    int,
    BeforeValidator(partial(duration_s, max_s=MAX_RETRY_FOR_S)),
    WithJsonSchema({"type": "string", "pattern": _DURATION, "examples": ["24h", "90m"]}),
]
