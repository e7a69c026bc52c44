"""Field types and the base class of the settings and the profiles."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
)

from worker.config.credentials import checked_secret
from worker.config.variables import PREFIX
from worker.telemetry.redact import redact
from worker.urls import Endpoint

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
EndpointValue = Annotated[Endpoint, PlainValidator(Endpoint.of)]
SecretValue = Annotated[SecretStr, AfterValidator(lambda value: SecretStr(checked_secret(value.get_secret_value())))]


class Frozen(BaseModel):
    """The base of settings and profiles: immutable, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def variable(field: str) -> str:
    """Return the environment variable of a field of `Settings`, without the `_` behind a word that Python reserves."""
    return PREFIX + field.removesuffix("_").upper()


def plain(message: str) -> str:
    """Return a validator's message without pydantic's own words and without secrets."""
    return redact(message.removeprefix("Value error, "))
