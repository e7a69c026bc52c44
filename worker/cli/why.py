"""The commands `why` and `jobs why`: what jobs wait for. They use the HTTP API only."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import click

from worker.cli.options import client_here
from worker.cli.output import json_option, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_REASONS = 12
"""More do not fit on a screen."""


@click.command("why")
@json_option
def why(*, as_json: bool) -> None:
    """Show what the jobs that wait are waiting for, the most important first.

    A tenant's key shows its own jobs, a key with the scope admin those of all tenants.
    """
    with client_here() as client:
        found = client.queue_why()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(queue_lines(found)))


@click.command("why")
@click.argument("job_id", type=click.UUID)
@json_option
def job_why(job_id: uuid.UUID, *, as_json: bool) -> None:
    """Show why a job waits, in the order in which the reasons hold it back."""
    with client_here() as client:
        found = client.job_why(str(job_id))
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(job_lines(found)))


def queue_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of `why`."""
    waiting, running = found["waiting"], found["running"]
    lines = [f"{waiting:,} {'job waits' if waiting == 1 else 'jobs wait'}, {running:,} {_are(running)} under way."]
    reasons = found["reasons"]
    width = max((len(f"{each['jobs']:,}") for each in reasons), default=1)
    for each in reasons[:MAX_REASONS]:
        lines += _reason(each, f"{each['jobs']:{width},}  ")
    if len(reasons) > MAX_REASONS:
        lines.append(f"There are {len(reasons) - MAX_REASONS} more reasons: --json has all of them.")
    return lines


def job_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of `jobs why`."""
    if not found["reasons"]:
        return [printable(found["summary"])]
    what = "and waits" if found["waits"] else "and is under way"
    lines = [f"Job {found['id']} is {found['state']}, {what}:"]
    for number, each in enumerate(found["reasons"], 1):
        lines += _reason(each, f"{number}. ")
    return lines


def _reason(reason: Mapping[str, Any], head: str) -> Iterable[str]:
    """Return the sentence of a reason, and below it what can be done."""
    yield f"  {head}{printable(reason['words'])}"
    if reason["advice"]:
        yield f"  {' ' * len(head)}{printable(reason['advice'])}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
