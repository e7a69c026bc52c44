"""The commands that hold a store, a tenant or the queue, and list what is held. They use the HTTP API only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from worker.cli.admin import stores
from worker.cli.options import client_here
from worker.cli.output import Columns, json_option, print_json, print_table, printable
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.client.api import Client

_HOLDS = Columns(("KIND", "NAME", "SINCE", "BY", "REASON"), ("KIND", "NAME", "SINCE", "REASON", "BY"), "REASON")
_reason = click.option("--reason", metavar="TEXT", help="Why; the list of holds and the audit keep it.")
_name = click.argument("name")


@click.group()
def tenants() -> None:
    """Hold and release the jobs of a tenant."""


@click.group()
def queue() -> None:
    """Hold and release everything."""


@stores.command("pause")
@_name
@_reason
@json_option
def pause_store(name: str, reason: str | None, *, as_json: bool) -> None:
    """Begin nothing new at a store; what is in flight ends. Needs a key with the scope admin."""
    _hold(f"/v1/stores/{quote(name, safe='')}/pause", reason, as_json=as_json)


@stores.command("resume")
@_name
@_reason
@json_option
def resume_store(name: str, reason: str | None, *, as_json: bool) -> None:
    """Let the jobs of a store go on."""
    _hold(f"/v1/stores/{quote(name, safe='')}/resume", reason, as_json=as_json)


@tenants.command("pause")
@_name
@_reason
@json_option
def pause_tenant(name: str, reason: str | None, *, as_json: bool) -> None:
    """Begin nothing new of a tenant; what is in flight ends. Another tenant needs a key with the scope admin."""
    _hold(f"/v1/tenants/{quote(name, safe='')}/pause", reason, as_json=as_json)


@tenants.command("resume")
@_name
@_reason
@json_option
def resume_tenant(name: str, reason: str | None, *, as_json: bool) -> None:
    """Let the jobs of a tenant go on."""
    _hold(f"/v1/tenants/{quote(name, safe='')}/resume", reason, as_json=as_json)


@queue.command("pause")
@_reason
@json_option
def pause_queue(reason: str | None, *, as_json: bool) -> None:
    """Begin nothing new at all; jobs are still accepted, and what is in flight ends. Needs the scope admin."""
    _hold("/v1/queue/pause", reason, as_json=as_json)


@queue.command("resume")
@_reason
@json_option
def resume_queue(reason: str | None, *, as_json: bool) -> None:
    """Let everything go on."""
    _hold("/v1/queue/resume", reason, as_json=as_json)


@click.command()
@json_option
def holds(*, as_json: bool) -> None:
    """List what is held: the queue, stores and tenants."""
    found = _with_client(lambda client: client.holds())
    if as_json:
        print_json(found)
    else:
        print_table(_HOLDS, [_row(hold) for hold in found])


def _row(hold: Mapping[str, Any]) -> tuple[str, ...]:
    by = hold["person"] or (hold["actor"] if hold["key_name"] is None else f"key {hold['key_name']}")
    since = hold["since"].partition(".")[0].removesuffix("Z") + "Z"
    return hold["kind"], hold["name"], since, redact(by), redact(hold["reason"] or "")


def _hold(path: str, reason: str | None, *, as_json: bool) -> None:
    answer = _with_client(lambda client: client.hold(path, {} if reason is None else {"reason": reason}))
    if as_json:
        print_json(answer)
        return
    what = " ".join(part for part in (answer["kind"], answer["name"]) if part)
    state = "paused" if answer["paused"] else "not paused"
    click.echo(printable(f"{what} {state}" if answer["changed"] else f"{what} was {state} already"))


def _with_client(work: Callable[[Client], Any]) -> Any:
    with client_here() as client:
        return work(client)
