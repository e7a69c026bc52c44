"""The commands `put` and `jobs`. They use the HTTP API only."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.listing import list_events, list_jobs, list_slices
from worker.cli.options import client_here, label
from worker.cli.output import job_lines, json_option, outcome, print_json
from worker.errors import SlicewayError
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from worker.client.api import Client


class LeftRunning(SlicewayError):
    """The command stopped following an upload. The upload still runs."""

    code = "interrupted"


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("place", metavar="STORE:KEY")
@click.option("--wait/--no-wait", default=True, help="Follow the upload to its end (default), or only enqueue it.")
@click.option("--overwrite", is_flag=True, help="Replace an object that is there.")
@click.option("--verify", type=click.Choice(["auto", "size", "slice", "file"]), default="auto", show_default=True)
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 goes first.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", callback=label, help="May be given several times."
)
@click.option("--retry-for", metavar="TIME", help="Time in failure after which it fails, such as 24h.")
@json_option
def put(file: Path, place: str, *, wait: bool, as_json: bool, labels: list[tuple[str, str]], **options: Any) -> None:
    """Upload FILE, which must lie below a root, to STORE:KEY.

    A KEY that is empty or ends in a slash gets the file's name. Ctrl-C leaves the upload running. The command waits
    for an API or database that is away for a moment, before the job is accepted and while the command follows it.
    """
    from worker.cli.arguments import place_of, source_of  # noqa: PLC0415
    from worker.cli.progress import enqueue  # noqa: PLC0415
    from worker.client.api import Client  # noqa: PLC0415
    from worker.client.environment import environment  # noqa: PLC0415

    environ = environment()
    try:
        store, key = place_of(place, file)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    given = {name: value for name, value in options.items() if value is not None}
    job_spec = {"source": source_of(file, environ), "store": store, "key": key, "labels": dict(labels), **given}
    with Client.of(environ) as client:
        job = enqueue(client, job_spec, str(uuid.uuid4()), quiet=as_json)
        if wait:
            _follow(client, job["id"], as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            click.echo(job["id"])


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    from worker.cli.progress import follow  # noqa: PLC0415
    from worker.client.environment import Unreachable  # noqa: PLC0415
    from worker.client.retry import is_temporary  # noqa: PLC0415

    advice = f"`sliceway jobs show {job_id}` shows it, `sliceway jobs cancel {job_id}` ends it."
    try:
        view = follow(client, job_id, quiet=as_json)
    except KeyboardInterrupt:
        raise LeftRunning(f"the upload goes on as job {job_id}", advice=advice) from None
    except SlicewayError as error:
        if not (is_temporary(error) or isinstance(error, Unreachable)):
            raise
        text = f"{error.message}; the upload goes on as job {job_id}"
        raise LeftRunning(text, code="unreachable", advice=advice) from error
    if as_json:
        print_json(view)
    if view["state"] != JobState.SUCCEEDED:
        reason = view["error"] or {"message": f"it was {view['state']}", "advice": None}
        raise SlicewayError(f"job {job_id}: {reason['message']}", code="job_failed", advice=reason["advice"] or "")
    if not as_json:
        click.echo(outcome(view))


@click.group()
def jobs() -> None:
    """List, count, show and explain jobs, and act on them."""


for command in (list_jobs, list_events, list_slices):
    jobs.add_command(command)


@jobs.command("show")
@click.argument("job_id", type=click.UUID)
@click.option("--wait", "wait_s", type=click.IntRange(0, 60), default=0, metavar="SECONDS", help="At most 60.")
@json_option
def show_job(job_id: uuid.UUID, *, wait_s: int, as_json: bool) -> None:
    """Show a job; with --wait, when the job has ended or the time is over."""
    from worker.cli.progress import wait_for  # noqa: PLC0415

    with client_here() as client:
        view = wait_for(client, str(job_id), wait_s)
    if as_json:
        print_json(view)
    else:
        click.echo("\n".join(job_lines(view)))
