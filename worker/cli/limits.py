"""The commands that limit a store or a tenant, and list the limits. They use the HTTP API only."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from worker.cli.options import client_here
from worker.cli.output import Columns, json_option, print_json, print_table, printable
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMITS = Columns(
    ("KIND", "NAME", "IN FLIGHT", "SINCE", "BY", "REASON"),
    ("KIND", "NAME", "IN FLIGHT", "SINCE", "REASON", "BY"),
    "REASON",
)


class Limited(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A store or a tenant, as `store:NAME` or `tenant:NAME`."""

    name = "limited"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the kind and the name."""
        kind, _, name = value.partition(":")
        if kind not in {"store", "tenant"} or not name:
            self.fail(f"{value!r} is neither store:NAME nor tenant:NAME", param, ctx)
        return kind, name


class Most(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A number from 1 on, or `none`."""

    name = "most"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text: `none` removes the limit, and click takes None for an option that is not given."""
        if value != "none" and not re.fullmatch("[1-9][0-9]{0,6}", value):
            self.fail(f"{value!r} is neither a number from 1 on nor `none`; `pause` stops everything", param, ctx)
        return str(value)


@click.group()
def limits() -> None:
    """Limit how much a store or a tenant has in flight at once."""


@limits.command("show")
@json_option
def show(*, as_json: bool) -> None:
    """List the limits that operators have set."""
    with client_here() as client:
        found = client.limits()
    if as_json:
        print_json(found)
    else:
        print_table(_LIMITS, [_row(each) for each in found])


@limits.command("set")
@click.argument("what", metavar="store:NAME|tenant:NAME", type=Limited())
@click.option("--in-flight", "most", metavar="N|none", type=Most(), required=True, help="Steps and slices at once.")
@click.option("--reason", metavar="TEXT", help="Why; the list of limits and the audit keep it.")
@json_option
def set_limit(what: tuple[str, str], most: str, reason: str | None, *, as_json: bool) -> None:
    """Set the limit of a store or a tenant, or remove it. Needs a key with the scope admin."""
    kind, name = what
    body = {"max_in_flight": None if most == "none" else int(most)} | ({} if reason is None else {"reason": reason})
    with client_here() as client:
        answer = client.limit(f"/v1/limits/{kind}s/{quote(name, safe='')}", body)
    if as_json:
        print_json(answer)
        return
    number = answer["max_in_flight"]
    state = "no limit" if number is None else f"at most {number:,} in flight"
    click.echo(printable(f"{kind} {name}: {state}" + ("" if answer["changed"] else ", as before")))


def _row(limit: Mapping[str, Any]) -> tuple[str, ...]:
    by = limit["person"] or (limit["actor"] if limit["key_name"] is None else f"key {limit['key_name']}")
    since = limit["since"].partition(".")[0].removesuffix("Z") + "Z"
    most = f"{limit['max_in_flight']:,}"
    return limit["kind"], limit["name"], most, since, redact(by), redact(limit["reason"] or "")
