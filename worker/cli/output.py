"""What the command line prints: tables and lines for people, or JSON.

For people, sizes are bytes with commas, rates are MB/s (10^6 bytes), moments are UTC with a Z.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from worker.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.errors import SlicewayError

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON; a failure is a problem document on standard error."
)
_GAP = "  "
_AGES = (("d", 2 * 86_400, 86_400), ("h", 7200, 3600), ("m", 120, 60), ("s", 0, 1))
"""Unit, the least age in seconds that is shown in it, and its seconds."""
_MIN_CUT_COLUMNS = 12
"""With fewer columns of the terminal left, the table leaves out the cell that it may cut."""
_JOB_FIELDS = (
    *("id", "tenant", "state", "store", "key", "priority", "verify", "overwrite", "labels"),
    *("created_at", "started_at", "finished_at"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table.

    Attributes:
        names: in their order.
        by_worth: the same names, the most important first. A narrow terminal lacks the last ones.
        cut: the column whose cells are shortened before it is left out.
    """

    names: tuple[str, ...]
    by_worth: tuple[str, ...]
    cut: str = ""


JOBS = Columns(
    ("ID", "STATE", "AGE", "DONE", "BYTES", "RATE", "TENANT", "TARGET", "REASON"),
    ("ID", "STATE", "TARGET", "REASON", "AGE", "DONE", "RATE", "TENANT", "BYTES"),
    "TARGET",
)

EVENTS = Columns(
    ("AT", "KIND", "FROM", "TO", "EPOCH", "ACTOR", "CAUSE"),
    ("AT", "KIND", "CAUSE", "TO", "FROM", "ACTOR", "EPOCH"),
    "CAUSE",
)
SLICES = Columns(
    ("NUMBER", "OFFSET", "BYTES", "STATE", "ATTEMPTS", "SENDS", "DONE AT", "ERROR"),
    ("NUMBER", "STATE", "ERROR", "ATTEMPTS", "SENDS", "OFFSET", "BYTES", "DONE AT"),
    "ERROR",
)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Columns, rows: Sequence[Sequence[str]]) -> None:
    """Print head and rows. On a terminal no line is wider than the terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo("\n".join(table_lines(columns, rows, width)))


def table_lines(columns: Columns, rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return head and rows in columns. Where the width is too small for all, the most important that fit."""
    from rich.cells import cell_len  # noqa: PLC0415 - `--help` does not need it

    table = [columns.names, *[tuple(map(printable, row)) for row in rows]]
    wide = {name: max(map(cell_len, column)) for name, *column in zip(columns.names, *table, strict=True)}
    left = sum(wide.values()) + len(_GAP) * len(wide) if width is None else width
    kept: dict[str, int] = {}
    for name in columns.by_worth:
        room = min(wide[name], left) if name == columns.cut and left >= _MIN_CUT_COLUMNS else wide[name]
        if room <= left or not kept:  # the first one identifies the row
            kept[name] = room
            left -= room + len(_GAP)
    printed = [(place, kept[name]) for place, name in enumerate(columns.names) if name in kept]
    return [_GAP.join(_cell(row[place], room) for place, room in printed).rstrip() for row in table]


def _cell(text: str, width: int) -> str:
    """Return the text padded to the width in columns of a terminal; of a longer text the middle is cut out."""
    from rich.cells import cell_len  # noqa: PLC0415

    kept, fitted = min(len(text), width), text
    while cell_len(fitted) > width:
        kept -= 1
        fitted = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return fitted + " " * (width - cell_len(fitted))


def printable(text: str) -> str:
    """Return the text with its control characters escaped as in JSON, so that none moves the terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def rate_text(bytes_per_s: float) -> str:
    """Return the rate in MB/s."""
    return f"{bytes_per_s / 1e6:,.2f} MB/s"


def waiting_printer(timeout_s: float, *, quiet: bool) -> Callable[[SlicewayError], None]:
    """Return a function that prints a temporary failure on standard error, once for each reason, unless quiet."""
    printed: set[str] = set()

    def print_waiting(error: SlicewayError) -> None:
        if not quiet and error.message not in printed:
            printed.add(error.message)
            click.echo(f"sliceway: {printable(redact(error.message))}; waiting up to {timeout_s:.0f} s", err=True)

    return print_waiting


def finding_line(finding: Any, width: int) -> str:
    """Return a finding of the doctor or the drill in one line without secrets; ``width`` is that of its name."""
    advice = f"; {finding.advice}" if finding.advice else ""
    return redact(f"{finding.level:6}  {finding.check:{width}}  {finding.text}{advice}")


def acknowledged_bytes(progress: Mapping[str, Any]) -> int:
    """Return the bytes of a job that the store has acknowledged. An API of release 0.1 has no `bytes_in_flight`."""
    return int(progress["bytes_done"] + progress.get("bytes_in_flight", 0))


def job_row(view: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    """Return the job's cells for the columns `JOBS`."""
    done = view["progress"]
    percent = "" if done["percent"] is None else f"{done['percent']:.0f}%"
    size = "" if done["size_bytes"] is None else f"{done['size_bytes']:,}"
    target = f"{view['store']}:{view['key']}"
    rate = rate_text(view["throughput_bytes_per_s"]) if view["throughput_bytes_per_s"] else ""
    age = age_text(view["created_at"], now)
    return (view["id"], view["state"], age, percent, size, rate, view["tenant"], target, reason(view))


def reason(view: Mapping[str, Any]) -> str:
    """Return what a job waits for, or has failed of, in a word or two."""
    waiting = view["waiting"] or {}
    if waiting.get("paused_at"):
        return f"paused: {waiting.get('pause_reason') or 'by hand'}"
    if view["error"]:
        return str(view["error"]["code"])
    return "waits" if waiting.get("not_before") else ""


def age_text(moment: str, now: datetime) -> str:
    """Return how long ago a moment of the API was, in its largest unit; nothing for what is no moment."""
    try:
        seconds = max(0, int((now - datetime.fromisoformat(moment)).total_seconds()))
    except (ValueError, TypeError):
        return ""
    return next(f"{seconds // size_s}{unit}" for unit, least_s, size_s in _AGES if seconds >= least_s)


def event_row(event: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the event's cells for the columns `EVENTS`."""
    cause = event["cause"] or {}
    said = f"{cause['code']}: {cause.get('message', '')}" if "code" in cause else json.dumps(cause, ensure_ascii=False)
    states = (event["from_state"] or "", event["to_state"] or "")
    return (event["at"], event["kind"], *states, str(event["epoch"]), event["actor"], said if cause else "")


def slice_row(each: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the slice's cells for the columns `SLICES`."""
    error = each["error"]
    return (
        *(str(each["number"]), f"{each['offset_bytes']:,}", f"{each['size_bytes']:,}", each["state"]),
        *(str(each["attempts"]), str(each["sends"]), each["done_at"] or ""),
        f"{error['code']}: {error['message']}" if error else "",
    )


def job_lines(view: Mapping[str, Any]) -> list[str]:
    """Return the lines of `jobs show`: a name and a value each."""
    done, waiting = view["progress"], view["waiting"] or {}
    lines = [(name, view[name]) for name in _JOB_FIELDS if view[name] not in (None, {})]
    lines.append(("source", _source(view["source"])))
    if done["size_bytes"] is not None:
        lines.append(("progress", f"{acknowledged_bytes(done):,} of {done['size_bytes']:,} bytes, {done['percent']} %"))
    if done["slices_total"] is not None:
        lines.append(("slices", f"{done['slices_done']} of {done['slices_total']}"))
    if view["throughput_bytes_per_s"]:
        left = "" if view["eta_s"] is None else f", {view['eta_s']} s left"
        lines.append(("throughput", rate_text(view["throughput_bytes_per_s"]) + left))
    lines += [(name, value) for name, value in waiting.items() if value is not None]
    if not waiting.get("not_before") and view.get("next_attempt_at"):  # that of its slices; an older API has none
        lines.append(("next_attempt_at", view["next_attempt_at"]))
    if error := view["error"]:
        lines += [("error", f"{error['code']}: {error['message']}"), ("advice", error["advice"] or "")]
    if view["result"]:
        lines.append(("result", json.dumps(view["result"], ensure_ascii=False)))
    width = max(len(name) for name, _ in lines)
    return [f"{name:{width}}{_GAP}{printable(_value_text(value))}" for name, value in lines]


def _value_text(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name}={part}" for name, part in value.items())
        case _:
            return str(value)


def _source(source: Mapping[str, Any]) -> str:
    if "root" in source and "path" in source:
        return f"{source['root']}:{source['path']}"
    return json.dumps(source, ensure_ascii=False)  # a kind of source that only a later release has


def outcome(view: Mapping[str, Any]) -> str:
    """Return the last line of `put` for a job that succeeded."""
    size = view["progress"]["size_bytes"] or 0
    return f"{view['store']}:{printable(view['key'])} has all {size:,} bytes (job {view['id']})"
