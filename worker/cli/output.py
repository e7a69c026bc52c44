"""What the command line prints: jobs and tables in words, or everything as JSON.

For people sizes are bytes with commas, rates MB/s (10^6 bytes), moments UTC with a Z.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
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
_CUT_LEAST = 12
"""Columns of a terminal below which a cell that may be cut is left out instead."""
_TOLD = (
    *("id", "tenant", "state", "store", "key", "priority", "verify", "overwrite", "labels"),
    *("created_at", "started_at", "finished_at"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table.

    Attributes:
        names: in their order.
        by_worth: the same, those that a narrow terminal must show first; others are left out where there is no room.
        cut: the one whose cells are shortened before it is left out.
    """

    names: tuple[str, ...]
    by_worth: tuple[str, ...]
    cut: str = ""


JOBS = Columns(
    ("ID", "STATE", "DONE", "BYTES", "TARGET", "ERROR"), ("ID", "STATE", "TARGET", "ERROR", "DONE", "BYTES"), "TARGET"
)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Columns, rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their head; no line is wider than the terminal, if there is one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo("\n".join(table_lines(columns, rows, width)))


def table_lines(columns: Columns, rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return head and rows in columns; of a width that is too small for all, those of most worth that fit."""
    from rich.cells import cell_len  # noqa: PLC0415 - `--help` does without

    table = [columns.names, *[tuple(map(printable, row)) for row in rows]]
    wide = {name: max(map(cell_len, column)) for name, *column in zip(columns.names, *table, strict=True)}
    left = sum(wide.values()) + len(_GAP) * len(wide) if width is None else width
    kept: dict[str, int] = {}
    for name in columns.by_worth:
        room = min(wide[name], left) if name == columns.cut and left >= _CUT_LEAST else wide[name]
        if room <= left or not kept:  # the first of them is what a row is known by
            kept[name] = room
            left -= room + len(_GAP)
    shown = [(place, kept[name]) for place, name in enumerate(columns.names) if name in kept]
    return [_GAP.join(_cell(row[place], room) for place, room in shown).rstrip() for row in table]


def _cell(text: str, width: int) -> str:
    """Return a text that fills so many columns of a terminal, without its middle if it is longer."""
    from rich.cells import cell_len  # noqa: PLC0415 - `--help` does without

    kept, fitted = min(len(text), width), text
    while cell_len(fitted) > width:
        kept -= 1
        fitted = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return fitted + " " * (width - cell_len(fitted))


def printable(text: str) -> str:
    """Return a text without what would move a terminal's cursor: a line feed is written as it is in JSON."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def rate_text(bytes_per_s: float) -> str:
    """Return a rate in words."""
    return f"{bytes_per_s / 1e6:,.2f} MB/s"


def note_waiting(for_s: float, *, quiet: bool) -> Callable[[SlicewayError], None]:
    """Return what says on standard error, once for each reason, that a failure is waited out so long; or is silent."""
    said: set[str] = set()

    def note(error: SlicewayError) -> None:
        if not quiet and error.message not in said:
            said.add(error.message)
            click.echo(f"sliceway: {printable(redact(error.message))}; waiting up to {for_s:.0f} s", err=True)

    return note


def finding_line(finding: Any, width: int) -> str:
    """Return what a check or a step has found, in one line without secrets; its name takes so many columns."""
    advice = f"; {finding.advice}" if finding.advice else ""
    return redact(f"{finding.level:6}  {finding.check:{width}}  {finding.text}{advice}")


def acknowledged_bytes(progress: Mapping[str, Any]) -> int:
    """Return how far a job is by its `progress`: what is done, and in flight where the API says so (0.1 does not)."""
    return int(progress["bytes_done"] + progress.get("bytes_in_flight", 0))


def job_row(view: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a job as a row under `JOBS`."""
    done = view["progress"]
    percent = "" if done["percent"] is None else f"{done['percent']:.0f}%"
    size = "" if done["size_bytes"] is None else f"{done['size_bytes']:,}"
    target = f"{view['store']}:{view['key']}"
    return (view["id"], view["state"], percent, size, target, (view["error"] or {}).get("code", ""))


def job_lines(view: Mapping[str, Any]) -> list[str]:
    """Return everything that people want to know of a job, a line each."""
    done, waiting = view["progress"], view["waiting"] or {}
    told = [(name, view[name]) for name in _TOLD if view[name] not in (None, {})]
    told.append(("source", _source(view["source"])))
    if done["size_bytes"] is not None:
        told.append(("progress", f"{acknowledged_bytes(done):,} of {done['size_bytes']:,} bytes, {done['percent']} %"))
    if done["slices_total"] is not None:
        told.append(("slices", f"{done['slices_done']} of {done['slices_total']}"))
    if view["throughput_bytes_per_s"]:
        left = "" if view["eta_s"] is None else f", {view['eta_s']} s left"
        told.append(("throughput", rate_text(view["throughput_bytes_per_s"]) + left))
    told += [(name, value) for name, value in waiting.items() if value is not None]
    if error := view["error"]:
        told += [("error", f"{error['code']}: {error['message']}"), ("advice", error["advice"] or "")]
    if view["result"]:
        told.append(("result", json.dumps(view["result"], ensure_ascii=False)))
    width = max(len(name) for name, _ in told)
    return [f"{name:{width}}{_GAP}{printable(_shown(value))}" for name, value in told]


def _shown(value: object) -> str:
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
    return json.dumps(source, ensure_ascii=False)  # of a kind that a later release has


def outcome(view: Mapping[str, Any]) -> str:
    """Return in one line what a job that succeeded has done."""
    size = view["progress"]["size_bytes"] or 0
    return f"{view['store']}:{printable(view['key'])} has all {size:,} bytes (job {view['id']})"
