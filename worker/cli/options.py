"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from worker.jobs.durations import FORM

if TYPE_CHECKING:
    from worker.client.api import Client


class Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A date or a time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the moment in the API's format. A moment without an offset is UTC."""
        try:
            moment = datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date or time such as 2026-01-31 or 2026-01-31T12:00:00Z", param, ctx)
        return moment.isoformat().replace("+00:00", "Z")


class Since(Moment):
    """A date, a time, or how long ago."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a duration as it is, a moment in the API's format."""
        if re.fullmatch(FORM, value):
            return str(value)
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither a duration such as 24h nor a date or time such as 2026-01-31", param, ctx)


def label(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Split each label at the first `=` or `:`. Release 0.1 took the colon only."""
    pairs = []
    for text in values:
        found = re.fullmatch(r"([^=:]+)[=:](.*)", text, re.DOTALL)
        if found is None:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        pairs.append((found[1], found[2]))
    return pairs


def client_here() -> Client:
    """Return a client with what the environment names."""
    from worker.client.api import Client  # noqa: PLC0415 - `--help` does not need it
    from worker.client.environment import environment  # noqa: PLC0415

    return Client.of(environment())
