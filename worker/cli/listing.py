"""The commands that find jobs and show what is in them: `jobs list`, `jobs events`, `jobs slices`."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from worker.cli.options import Moment, Since, client_here, label
from worker.cli.output import (
    EVENTS,
    JOBS,
    SLICES,
    Columns,
    event_row,
    job_row,
    json_option,
    print_json,
    print_table,
    slice_row,
)
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.client.api import Listed
    from worker.jobs.filters import Filter

_COUNTS = Columns(("VALUE", "JOBS"), ("VALUE", "JOBS"), "VALUE")


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which jobs."""
    states = click.Choice([state.value for state in JobState])
    options = (
        click.option("--filter", "query", metavar="QUERY", help="As the API takes it: 'state=failed&older_than=1h'."),
        click.option("--state", multiple=True, type=states, help="May be given several times."),
        click.option("--store"),
        click.option("--key-prefix"),
        click.option(
            "--label", multiple=True, metavar="NAME=VALUE", callback=label, help="May be given several times."
        ),
        click.option("--error-code"),
        click.option("--since", type=Since(), metavar="TIME", help="Created in the last 24h, or since 2026-01-31."),
        click.option("--older-than", metavar="TIME", help="Created longer ago than this, such as 1h."),
        click.option(
            "--created-from", type=Moment(), metavar="MOMENT", help="Such as 2026-01-31T12:00:00Z, or a day, in UTC."
        ),
        click.option("--created-before", type=Moment(), metavar="MOMENT"),
        click.option("--tenant", help="Needs a key with the scope admin."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def which_jobs(
    query: str | None, label: Sequence[tuple[str, str]], state: Sequence[str], **single: str | None
) -> Filter:
    """Return the filter of the options of `filter_options`.

    Raises:
        UsageError: one is wrong, or two contradict each other.
    """
    from urllib.parse import parse_qsl  # noqa: PLC0415 - `--help` does not need it

    from worker.jobs.filters import LABEL, WrongFilter, parse  # noqa: PLC0415

    pairs = parse_qsl(query or "", keep_blank_values=True)
    pairs += [("state", each) for each in state] + [(f"{LABEL}{name}", value) for name, value in label]
    pairs += [(name, value) for name, value in single.items() if value]
    try:
        return parse(pairs)
    except WrongFilter as wrong:
        raise click.UsageError(wrong.message) from None


@click.command("list")
@filter_options
@click.option("--order", type=click.Choice(["newest", "oldest"]), default="newest", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@click.option("--cursor", help="Continue a list; its end names the cursor.")
@click.option("--count", is_flag=True, help="Print how many match.")
@click.option("--group-by", metavar="FIELD", help="Count by state, store, tenant, error_code or label.NAME.")
@click.option("--exact", is_flag=True, help="Count every job, however long it takes.")
@click.option(
    "--watch", is_flag=True, help="Go on until Ctrl-C. In a pipe: a line for each job that is new or changed."
)
@click.option("--every", "every_s", type=click.IntRange(1), default=2, show_default=True, help="Seconds; of --watch.")
@json_option
def list_jobs(
    *, order: str, limit: int, cursor: str | None, count: bool, group_by: str | None, exact: bool, watch: bool,
    every_s: int, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    """List jobs, newest first.

    A terminal that is too narrow for every column shows those that fit. --json and pipes have every column. AGE is the
    time since a job was enqueued.
    """
    from worker.cli.watch import watch_counts, watch_jobs  # noqa: PLC0415

    which = which_jobs(**filters)
    with client_here() as api:
        if count or group_by:
            by = group_by or "state"
            if watch:
                watch_counts(lambda: api.counts(which, by, exact=exact), every_s, as_json=as_json)
            else:
                _print_counts(api.counts(which, by, exact=exact), grouped=group_by is not None, as_json=as_json)
            return
        if watch:
            watch_jobs(lambda: api.jobs(which, limit, cursor, order=order).items, every_s, as_json=as_json)
            return
        found = api.jobs(which, limit, cursor, order=order)
    now = datetime.now(UTC)
    _print(found, JOBS, lambda view: job_row(view, now), as_json=as_json)


def _print_counts(counts: dict[str, Any], *, grouped: bool, as_json: bool) -> None:
    if as_json:
        print_json(counts)
        return
    if grouped:
        print_table(
            _COUNTS,
            [("-" if each["value"] is None else each["value"], f"{each['count']:,}") for each in counts["groups"]],
        )
    else:
        click.echo(counts["total"])
    if counts["groups_omitted"] and grouped:
        click.echo(f"There are {counts['groups_omitted']:,} more groups.", err=True)
    if counts["approximate"]:
        click.echo("A sample was counted: --exact counts every job.", err=True)


@click.command("events")
@click.argument("job_id", type=click.UUID)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--cursor", help="Continue a list; its end names the cursor.")
@json_option
def list_events(job_id: uuid.UUID, *, limit: int, cursor: str | None, as_json: bool) -> None:
    """List what has happened to a job, oldest first."""
    with client_here() as api:
        found = api.events(str(job_id), limit, cursor)
    _print(found, EVENTS, event_row, as_json=as_json)


@click.command("slices")
@click.argument("job_id", type=click.UUID)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--cursor", help="Continue a list; its end names the cursor.")
@json_option
def list_slices(job_id: uuid.UUID, *, limit: int, cursor: str | None, as_json: bool) -> None:
    """List the slices of a job. After success only their summary is left."""
    with client_here() as api:
        found = api.slices(str(job_id), limit, cursor)
    summary = found.page["summary"]
    if as_json:
        print_json({"items": found.items, "summary": summary})
        _print_more(found)
    elif summary is None:
        _print(found, SLICES, slice_row, as_json=False)
    else:
        click.echo("The job has succeeded: " + ", ".join(f"{name} {value}" for name, value in summary.items()))


def _print(found: Listed, columns: Columns, row: Callable[[dict[str, Any]], tuple[str, ...]], *, as_json: bool) -> None:
    if as_json:
        print_json(found.items)
    else:
        print_table(columns, [row(item) for item in found.items])
    _print_more(found)


def _print_more(found: Listed) -> None:
    if found.next_cursor is not None:
        click.echo(f"There are more: `--cursor {found.next_cursor}` goes on, a larger --limit shows more.", err=True)
