"""What the command line prints: jobs and tables in words, or everything as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from worker.redact import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
JOB_HEAD = ("ID", "STATE", "DONE", "BYTES", "TARGET", "ERROR")
_TOLD = (
    *("id", "tenant", "state", "store", "key", "priority", "verify", "overwrite", "labels"),
    *("created_at", "started_at", "finished_at"),
)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head, in columns."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for each in (head, *rows):
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(each, widths, strict=True)).rstrip())


def finding_line(finding: Any, width: int) -> str:
    """Return what a check or a step has found, in one line without secrets; its name takes so many columns."""
    advice = f"; {finding.advice}" if finding.advice else ""
    return redact(f"{finding.level:6}  {finding.check:{width}}  {finding.text}{advice}")


def acknowledged_bytes(progress: Mapping[str, Any]) -> int:
    """Return how far a job is by its `progress`: what is done, and in flight where the API says so (0.1 does not)."""
    return int(progress["bytes_done"] + progress.get("bytes_in_flight", 0))


def job_row(view: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a job as a row under `JOB_HEAD`."""
    done = view["progress"]
    percent = "" if done["percent"] is None else f"{done['percent']:.0f}%"
    size = "" if done["size_bytes"] is None else str(done["size_bytes"])
    target = f"{view['store']}:{view['key']}"
    return (view["id"], view["state"], percent, size, target, (view["error"] or {}).get("code", ""))


def job_lines(view: Mapping[str, Any]) -> list[str]:
    """Return everything that people want to know of a job, a line each."""
    done, waiting = view["progress"], view["waiting"] or {}
    told = [(name, view[name]) for name in _TOLD if view[name] not in (None, {})]
    told.append(("source", f"{view['source']['root']}:{view['source']['path']}"))
    if done["size_bytes"] is not None:
        told.append(("progress", f"{acknowledged_bytes(done):,} of {done['size_bytes']:,} bytes, {done['percent']} %"))
    if done["slices_total"] is not None:
        told.append(("slices", f"{done['slices_done']} of {done['slices_total']}"))
    if view["throughput_bytes_per_s"]:
        told.append(("throughput", f"{view['throughput_bytes_per_s']:,} bytes/s, {view['eta_s']} s left"))
    told += [(name, value) for name, value in waiting.items() if value is not None]
    if error := view["error"]:
        told += [("error", f"{error['code']}: {error['message']}"), ("advice", error["advice"] or "")]
    if view["result"]:
        told.append(("result", json.dumps(view["result"], ensure_ascii=False)))
    width = max(len(name) for name, _ in told)
    return [f"{name:{width}}  {_shown(value)}" for name, value in told]


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name}={part}" for name, part in value.items())
        case _:
            return str(value)


def outcome(view: Mapping[str, Any]) -> str:
    """Return in one line what a job that succeeded has done."""
    size = view["progress"]["size_bytes"] or 0
    return f"{view['store']}:{view['key']} has all {size:,} bytes (job {view['id']})"
