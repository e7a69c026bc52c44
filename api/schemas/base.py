"""Base classes and types of fields that requests share; each type accepts its documented form and nothing else."""

import re
from functools import partial
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from worker.jobs.durations import FORM as DURATION
from worker.jobs.durations import duration_s

MAX_RETRY_FOR_S = 30 * 86_400


class JsonBody(BaseModel):
    """A JSON object of a request's body; an unknown field is refused, and no type is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class QueryParameters(BaseModel):
    """The query of a request; an unknown name is refused, since a misspelt filter would match everything."""

    model_config = ConfigDict(extra="forbid")


def _only(form: str, message: str) -> BeforeValidator:
    """Return a validator that refuses a text of another form; pydantic would convert some of them."""
    pattern = re.compile(form)

    def check(value: object) -> object:
        if isinstance(value, str) and not pattern.fullmatch(value):
            raise ValueError(message)
        return value

    return BeforeValidator(check)


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # a text column cannot hold NUL
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
Integer = Annotated[int, _only("0|-?[1-9][0-9]{0,18}", "must be an integer")]  # pydantic: also `1.0`, `1_0`, `+1`, ` 1`
Flag = Annotated[bool, _only("true|false", "must be true or false")]  # pydantic: also `yes`, `on`, `1`
RetryFor = Annotated[
    int,
    BeforeValidator(partial(duration_s, max_s=MAX_RETRY_FOR_S)),
    WithJsonSchema({"type": "string", "pattern": DURATION, "examples": ["24h", "90m"]}),
]
