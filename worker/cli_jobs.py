"""Commands for whoever has files to upload: `put` and `jobs`, over the API."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.errors import SlicewayError
from worker.terminal import JOB_HEAD, job_lines, job_row, json_option, outcome, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.client import Client

_STATES = ("queued", "initializing", "uploading", "finishing", "succeeded", "failed", "cancelling", "cancelled")


class LeftRunning(SlicewayError):
    """Whoever followed an upload has turned away; it goes on."""

    code = "interrupted"


def _client() -> Client:
    from worker.client import Client  # noqa: PLC0415 - `--help` does without
    from worker.surroundings import environment  # noqa: PLC0415

    return Client.of(environment())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("place", metavar="STORE:KEY")
@click.option("--wait/--no-wait", default=True, help="Follow the upload to its end (default), or only enqueue it.")
@click.option("--overwrite", is_flag=True, help="Replace an object that is there.")
@click.option("--verify", type=click.Choice(["auto", "size", "slice", "file"]), default="auto", show_default=True)
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 goes first.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be given several times.")
@click.option("--retry-for", metavar="TIME", help="Time in failure after which it fails, such as 24h.")
@json_option
def put(file: Path, place: str, *, wait: bool, as_json: bool, labels: tuple[str, ...], **wishes: Any) -> None:
    """Upload FILE, which must lie below a root, to STORE:KEY.

    A KEY that is empty or ends in a slash gets the file's name. Ctrl-C leaves the upload running.
    """
    from worker.client import Client  # noqa: PLC0415
    from worker.surroundings import environment  # noqa: PLC0415
    from worker.wishes import place_of, source_of  # noqa: PLC0415

    environ = environment()
    try:
        store, key = place_of(place, file)
        pairs = dict(_pair(label) for label in labels)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    given = {name: value for name, value in wishes.items() if value is not None}
    wish = {"source": source_of(file, environ), "store": store, "key": key, "labels": pairs, **given}
    with Client.of(environ) as client:
        job = client.enqueue(wish, str(uuid.uuid4()))
        if wait:
            _follow(client, job["id"], as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            click.echo(job["id"])


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    from worker.progress import follow  # noqa: PLC0415

    try:
        view = follow(client, job_id, quiet=as_json)
    except KeyboardInterrupt:
        advice = f"`sliceway jobs show {job_id}` shows it, `sliceway jobs cancel {job_id}` ends it."
        raise LeftRunning(f"the upload goes on as job {job_id}", advice=advice) from None
    if as_json:
        print_json(view)
    if view["state"] != "succeeded":
        error = view["error"] or {"message": f"it was {view['state']}", "advice": None}
        raise SlicewayError(f"job {job_id}: {error['message']}", code="job_failed", advice=error["advice"] or "")
    if not as_json:
        click.echo(outcome(view))


@click.group()
def jobs() -> None:
    """Look at jobs, retry and cancel them."""


@jobs.command("list")
@click.option("--state", multiple=True, type=click.Choice(_STATES), help="May be given several times.")
@click.option("--store")
@click.option("--key-prefix")
@click.option("--label", multiple=True, metavar="NAME:VALUE", help="May be given several times.")
@click.option("--error-code")
@click.option("--tenant", help="Needs a key with the scope admin.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def list_jobs(*, limit: int, as_json: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    with _client() as client:
        found = list(client.jobs(filters, limit))
    if as_json:
        print_json(found)
    else:
        print_table(JOB_HEAD, [job_row(view) for view in found])


@jobs.command("show")
@click.argument("job_id", type=click.UUID)
@click.option("--wait", "wait_s", type=click.IntRange(0, 60), default=0, metavar="SECONDS", help="At most 60.")
@json_option
def show_job(job_id: uuid.UUID, *, wait_s: int, as_json: bool) -> None:
    """Show a job; with --wait, once it has ended or the time is over."""
    with _client() as client:
        view = client.job(str(job_id), wait_s=wait_s)
    if as_json:
        print_json(view)
    else:
        click.echo("\n".join(job_lines(view)))


@jobs.command("retry")
@click.argument("job_id", type=click.UUID)
@click.option("--force", is_flag=True, help="Replace what a later job has put there.")
@json_option
def retry_job(job_id: uuid.UUID, *, force: bool, as_json: bool) -> None:
    """Put a failed, cancelled or paused job back to work."""
    with _client() as client:
        _print_moved(client.retry(str(job_id), force=force), as_json=as_json)


@jobs.command("cancel")
@click.argument("job_id", type=click.UUID)
@json_option
def cancel_job(job_id: uuid.UUID, *, as_json: bool) -> None:
    """Cancel a job: none of its slices is begun any more."""
    with _client() as client:
        _print_moved(client.cancel(str(job_id)), as_json=as_json)


def _print_moved(moved: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(moved)
    else:
        click.echo(f"{moved['id']} {moved['state']}")
