"""The commands `put` and `jobs`. They use the HTTP API only."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.output import JOBS, job_lines, job_row, json_option, outcome, print_json, print_table
from worker.errors import SlicewayError
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from worker.client.api import Client


class LeftRunning(SlicewayError):
    """The command stopped following an upload. The upload still runs."""

    code = "interrupted"


class _Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the moment in the API's format. A moment without an offset is UTC."""
        try:
            moment = datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no date or time such as 2026-01-31 or 2026-01-31T12:00:00Z", param, ctx)
        return moment.isoformat().replace("+00:00", "Z")


def _label(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Split each label at the first `=` or `:`. Release 0.1 took the colon only."""
    pairs = []
    for text in values:
        found = re.fullmatch(r"([^=:]+)[=:](.*)", text, re.DOTALL)
        if found is None:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        pairs.append((found[1], found[2]))
    return pairs


def client_here() -> Client:
    """Return a client of the API that the environment names."""
    from worker.client.api import Client  # noqa: PLC0415 - `--help` does not need it
    from worker.client.environment import environment  # noqa: PLC0415

    return Client.of(environment())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("place", metavar="STORE:KEY")
@click.option("--wait/--no-wait", default=True, help="Follow the upload to its end (default), or only enqueue it.")
@click.option("--overwrite", is_flag=True, help="Replace an object that is there.")
@click.option("--verify", type=click.Choice(["auto", "size", "slice", "file"]), default="auto", show_default=True)
@click.option("--priority", type=click.IntRange(0, 9), default=5, show_default=True, help="0 goes first.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", callback=_label, help="May be given several times."
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
    """List, show and explain jobs, and act on them."""


@jobs.command("list")
@click.option(
    "--state", multiple=True, type=click.Choice([state.value for state in JobState]), help="May be given several times."
)
@click.option("--store")
@click.option("--key-prefix")
@click.option("--label", multiple=True, metavar="NAME=VALUE", callback=_label, help="May be given several times.")
@click.option("--error-code")
@click.option(
    "--created-from", type=_Moment(), metavar="MOMENT", help="Such as 2026-01-31T12:00:00Z, or a day, in UTC."
)
@click.option("--created-before", type=_Moment(), metavar="MOMENT")
@click.option("--tenant", help="Needs a key with the scope admin.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--cursor", help="Continue a list; its end names the cursor.")
@json_option
def list_jobs(*, limit: int, cursor: str | None, as_json: bool, label: list[tuple[str, str]], **filters: Any) -> None:
    """List jobs, newest first.

    A terminal that is too narrow for every column shows those that fit. --json and pipes have every column.
    """
    with client_here() as client:
        found = client.jobs(filters | {"label": [f"{name}:{value}" for name, value in label]}, limit, cursor)
    if as_json:
        print_json(found.items)
    else:
        print_table(JOBS, [job_row(view) for view in found.items])
    if found.next_cursor is not None:
        click.echo(f"There are more: `--cursor {found.next_cursor}` goes on, a larger --limit shows more.", err=True)


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
