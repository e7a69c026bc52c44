"""The commands `jobs retry`, `cancel`, `abandon`, `pause`, `resume`, `priority` and `start`, on one job or several.

One job is a request, and the command ends as that request does. Of several each has a result of its own; a refused one
stops none of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from worker.cli.options import client_here
from worker.cli.output import json_option, print_json, printable
from worker.errors import SlicewayError
from worker.telemetry.redact import redact

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Mapping, Sequence

    from worker.client.api import Client

Action = tuple[str, "Mapping[str, Any]", "Mapping[str, Any]"]
"""The last part of the path, the query and the body of a request for an action."""

_ids = click.argument("job_ids", metavar="ID...", type=click.UUID, nargs=-1, required=True)
_reason = click.option("--reason", metavar="TEXT", help="Why; the history of the job keeps it.")


def _command(name: str) -> Callable[[Callable[..., Action]], click.Command]:
    """Make the command of an action: the function returns what to send, by the command's own options."""

    def decorate(action: Callable[..., Action]) -> click.Command:
        def run(*, job_ids: Sequence[uuid.UUID], reason: str | None, as_json: bool, **options: Any) -> None:
            path, query, body = action(**options)
            body = dict(body) if reason is None else {**body, "reason": reason}
            _act([str(job) for job in job_ids], (path, query, body), as_json=as_json)

        run.__doc__ = action.__doc__
        run.__click_params__ = getattr(action, "__click_params__", [])  # type: ignore[attr-defined]
        return click.command(name)(_ids(_reason(json_option(run))))

    return decorate


@_command("retry")
@click.option("--force", is_flag=True, help="Replace what a later job has put there.")
@click.option("--from-scratch", is_flag=True, help="Keep nothing of what the store may still have.")
def retry(*, force: bool, from_scratch: bool) -> Action:
    """Put failed, cancelled or paused jobs back to work."""
    return "retry", {"force": force}, {"from": "scratch"} if from_scratch else {}


@_command("cancel")
def cancel() -> Action:
    """Cancel jobs: workers begin no more slices of them."""
    return "cancel", {}, {}


@_command("abandon")
def abandon() -> Action:
    """Cancel jobs without their store: their sessions are left open there."""
    return "abandon", {}, {}


@_command("pause")
def pause() -> Action:
    """Begin no more work of jobs until they are resumed; what is in flight ends."""
    return "pause", {}, {}


@_command("resume")
def resume() -> Action:
    """Let paused jobs go on."""
    return "resume", {}, {}


@_command("priority")
@click.option("--to", "priority", type=click.IntRange(0, 9), required=True, help="0 goes first.")
def priority(*, priority: int) -> Action:
    """Give jobs another priority, for what is dispatched from now on."""
    return "priority", {}, {"priority": priority}


@_command("start")
def start() -> Action:
    """End the wait of jobs for their next attempt; a line says what holds a job back nevertheless."""
    return "start", {}, {}


ACTIONS = (retry, cancel, abandon, pause, resume, priority, start)


def _act(jobs: Sequence[str], action: Action, *, as_json: bool) -> None:
    with client_here() as client:
        if len(jobs) == 1:
            answer = _sent(client, jobs[0], action)
            if as_json:
                print_json(answer)
            else:
                _print_line(answer)
        else:
            _act_on_several(client, jobs, action, as_json=as_json)


def _act_on_several(client: Client, jobs: Sequence[str], action: Action, *, as_json: bool) -> None:
    """Send a request a job, and print a result a job.

    Raises:
        SlicewayError: `some_refused`; or the failure after which nothing more was sent.
    """
    from worker.client.answers import RefusedByApi, is_temporary_status  # noqa: PLC0415

    results: list[Mapping[str, Any]] = []
    refused = 0
    try:
        for job in jobs:
            try:
                results.append(_sent(client, job, action))
            except RefusedByApi as error:
                if is_temporary_status(error.status) or error.code in {"unauthenticated", "forbidden"}:
                    raise
                refused += 1
                results.append({"id": job, "problem": error.document})
            if not as_json:
                _print_line(results[-1])
    finally:
        if as_json:
            print_json(results)
    if refused:
        text, advice = f"{refused} of {len(jobs)} jobs were refused", "See what was printed of each."
        raise SlicewayError(text, code="some_refused", advice=advice)


def _sent(client: Client, job: str, action: Action) -> dict[str, Any]:
    path, query, body = action
    return client.act(f"/v1/jobs/{job}/{path}", query, body)


def _print_line(answer: Mapping[str, Any]) -> None:
    if problem := answer.get("problem"):
        click.echo(printable(redact(f"{answer['id']} refused: {problem['code']}: {problem['detail']}")))
        return
    click.echo(f"{answer['id']} {answer['state']}")
    for hold in answer.get("held_back", []):
        reason = f": {hold['reason']}" if hold["reason"] else ""
        click.echo(printable(redact(f"  held back: {hold['by']} since {hold['since']}{reason}")))
