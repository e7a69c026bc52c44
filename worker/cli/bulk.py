"""The commands `jobs actions ...`: an action on all jobs that match a filter, and how far such actions are."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import click

from worker.cli.listing import filter_options, which_jobs
from worker.cli.options import client_here
from worker.cli.output import JOBS, Columns, job_row, json_option, print_json, print_table, printable, waiting_printer
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping

    from worker.client.api import Client

_EVERY_S = 1.0
_AWAY_FOR_S = 300.0
"""How long --wait bears an API that is away."""
_COLUMNS = Columns(
    ("ID", "AT", "ACTION", "STATE", "DONE", "CHANGED", "REFUSED", "FILTER"),
    ("ID", "STATE", "ACTION", "DONE", "REFUSED", "CHANGED", "FILTER", "AT"),
    "FILTER",
)
_reason = click.option("--reason", metavar="TEXT", help="Why; the history keeps it.")
_id = click.argument("action_id", metavar="ID", type=click.UUID)


@click.group("actions")
def bulk_actions() -> None:
    """Act on all jobs that match a filter: count them with --dry-run, then confirm the count.

    The workers carry the action out, also after this command has ended.
    """


def _command(name: str, about: str, *options: Callable[[Any], Any]) -> click.Command:
    """Make the command of an action."""

    def run(
        *, dry_run: bool, confirm: int | None, wait: bool, reason: str | None, as_json: bool,
        priority: int | None = None, from_scratch: bool = False, **filters: Any,
    ) -> None:  # fmt: skip
        if dry_run == (confirm is not None):
            raise click.UsageError("give either --dry-run or --confirm N, with the count of a dry run")
        which = which_jobs(**filters)
        body: dict[str, Any] = {"action": name, "filter": which.query()}
        body |= {"priority": priority} if priority is not None else {}
        body |= {"from": "scratch"} if from_scratch else {}
        body |= {} if reason is None else {"reason": reason}
        with client_here() as client:
            if confirm is None:
                _print_count(client.count_for(body), as_json=as_json)
            else:
                view = client.act_on_all(body, confirm)
                _print(_followed(client, view, quiet=as_json) if wait else view, as_json=as_json)

    run.__doc__ = about
    decorated: Any = _reason(json_option(run))
    confirmations = (
        click.option("--dry-run", is_flag=True, help="Count the jobs and list some; nothing is changed."),
        click.option("--confirm", type=click.IntRange(0), metavar="N", help="Do it, if exactly N jobs match."),
        click.option("--wait", is_flag=True, help="Follow the action to its end."),
    )
    for option in reversed((*options, *confirmations)):
        decorated = option(decorated)
    return click.command(name)(filter_options(decorated))


_SCRATCH = click.option("--from-scratch", is_flag=True, help="Keep nothing of what the store may still have.")
_PRIORITY = click.option("--to", "priority", type=click.IntRange(0, 9), required=True, help="0 goes first.")
for _made in (
    _command("retry", "Put failed, cancelled or paused jobs back to work.", _SCRATCH),
    _command("cancel", "Cancel jobs: workers begin no more slices of them."),
    _command("abandon", "Cancel jobs without their store: their sessions are left open there."),
    _command("pause", "Begin no more work of jobs until they are resumed; what is in flight ends."),
    _command("resume", "Let paused jobs go on."),
    _command("priority", "Give jobs another priority, for what is dispatched from now on.", _PRIORITY),
    _command("start", "End the wait of jobs for their next attempt."),
):
    bulk_actions.add_command(_made)


@bulk_actions.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--cursor", help="Continue a list; its end names the cursor.")
@json_option
def list_actions(*, limit: int, cursor: str | None, as_json: bool) -> None:
    """List actions on all jobs of a filter, newest first."""
    with client_here() as client:
        found = client.bulk_actions(limit, cursor)
    if as_json:
        print_json(found.items)
    else:
        print_table(_COLUMNS, [_row(view) for view in found.items])
    if found.next_cursor is not None:
        click.echo(f"There are more: `--cursor {found.next_cursor}` goes on, a larger --limit shows more.", err=True)


@bulk_actions.command("show")
@_id
@click.option("--wait", is_flag=True, help="Follow the action to its end.")
@json_option
def show_action(action_id: uuid.UUID, *, wait: bool, as_json: bool) -> None:
    """Show how far an action is, and what was refused."""
    with client_here() as client:
        view = client.bulk_action(str(action_id))
        _print(_followed(client, view, quiet=as_json) if wait else view, as_json=as_json)


@bulk_actions.command("stop")
@_id
@_reason
@json_option
def stop_action(action_id: uuid.UUID, *, reason: str | None, as_json: bool) -> None:
    """Take no more jobs; what is done stays done."""
    with client_here() as client:
        view = client.stop_bulk_action(str(action_id), {} if reason is None else {"reason": reason})
    _print(view, as_json=as_json)


def _followed(client: Client, view: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Return the action when it has ended; its progress is printed on standard error, unless quiet."""
    from worker.client.retry import retry_temporary  # noqa: PLC0415 - `--help` does not need it

    shown = ""
    look = functools.partial(client.bulk_action, view["id"])
    on_wait = waiting_printer(_AWAY_FOR_S, quiet=quiet)
    while view["state"] == "running":
        if not quiet and (line := _line(view)) != shown:
            click.echo(line, err=True)
            shown = line
        time.sleep(_EVERY_S)
        view = retry_temporary(look, timeout_s=_AWAY_FOR_S, on_failure=on_wait)
    return view


def _print_count(counted: Mapping[str, Any], *, as_json: bool) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    if as_json:
        print_json(counted)
        return
    click.echo(f"{counted['count']} jobs match {printable(redact(counted['filter']))}")
    if counted["sample"]:
        now = datetime.now(UTC)
        print_table(JOBS, [job_row(view, now) for view in counted["sample"]])
    click.echo(f"Nothing was changed: `--confirm {counted['count']}` instead of --dry-run does it.", err=True)


def _print(view: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    click.echo(_line(view))
    for each in view["refusals"]:
        click.echo(f"  {each['code']}: {each['count']} refused")
        for example in each["examples"]:
            click.echo(printable(redact(f"    {example['id']}: {example['message']}")))


def _line(view: Mapping[str, Any]) -> str:
    figures = f"{view['done']} of {view['total']} jobs, {view['changed']} changed, {view['refused']} refused"
    return f"{view['id']} {view['action']} {view['state']}: {figures}"


def _row(view: Mapping[str, Any]) -> tuple[str, ...]:
    at = view["created_at"].partition(".")[0].removesuffix("Z") + "Z"
    done = f"{view['done']}/{view['total']}"
    figures = (done, str(view["changed"]), str(view["refused"]), redact(view["filter"]))
    return (view["id"], at, view["action"], view["state"], *figures)
