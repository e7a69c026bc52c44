"""The command `audit`: who did what. It uses the HTTP API only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from worker.cli.options import client_here
from worker.cli.output import Columns, json_option, print_json, print_table
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_AUDIT = Columns(
    ("AT", "BY", "TENANT", "ACTION", "WHAT", "DONE", "REASON"),
    ("AT", "BY", "ACTION", "WHAT", "REASON", "DONE", "TENANT"),
    "WHAT",
)


@click.command()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--cursor", help="Continue a list; its end names the cursor.")
@json_option
def audit(*, limit: int, cursor: str | None, as_json: bool) -> None:
    """List who did what, newest first: actions on jobs, stores, tenants and the queue, and API keys.

    A key with the scope admin sees all of it, another what the keys of its own tenant did.
    """
    with client_here() as client:
        found = client.audit(limit, cursor)
    if as_json:
        print_json(found.items)
    else:
        print_table(_AUDIT, [_row(entry) for entry in found.items])
    if found.next_cursor is not None:
        click.echo(f"There are more: `--cursor {found.next_cursor}` goes on, a larger --limit shows more.", err=True)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    by = entry["person"] or (entry["actor"] if entry["key_name"] is None else f"key {entry['key_name']}")
    done = f"{entry['changed']}" + (f", {entry['refused']} refused" if entry["refused"] else "")
    what = entry["what"]
    shown = ", ".join(f"{name} {_short(value)}" for name, value in what.items())
    cells = (by, entry["tenant"] or "", entry["action"], shown, done, entry["reason"] or "")
    return (entry["at"].partition(".")[0].removesuffix("Z") + "Z", *map(redact, cells))


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
