"""Shows jobs or counts again and again, until Ctrl-C."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from worker.cli.output import JOBS, job_row, printable, table_lines, waiting_printer
from worker.client.retry import retry_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

AWAY_FOR_S = 300.0
"""How long the API may be away."""
_CLEAR = "\x1b[H\x1b[2J"
_ROWS_ELSE = 4  # of the terminal: the time, the head, the line on what is left out, the cursor


def watch_jobs(load: Callable[[], list[dict[str, Any]]], every_s: float, *, as_json: bool) -> None:
    """Redraw the jobs on a terminal. Elsewhere print each job that is new or has changed, as a line."""
    known: dict[str, tuple[str, ...] | dict[str, Any]] = {}

    def show(views: list[dict[str, Any]]) -> None:
        now = datetime.now(UTC)
        if not as_json and sys.stdout.isatty():
            _redraw(_screen([job_row(view, now) for view in views], now))
            return
        changed = {}
        for view in views:
            row = job_row(view, now)
            # its age and rate change by themselves
            seen = (
                view if as_json else tuple(cell for place, cell in enumerate(row) if JOBS.names[place] not in _MOVING)
            )
            if known.get(view["id"]) != seen:
                changed[view["id"]] = seen
                _line(json.dumps(view, ensure_ascii=False) if as_json else "  ".join([_time(now), *filter(None, row)]))
        known.update(changed)

    _repeat(load, show, every_s, quiet=as_json)


_MOVING = ("AGE", "RATE")


def watch_counts(load: Callable[[], dict[str, Any]], every_s: float, *, as_json: bool) -> None:
    """Redraw the counts on a terminal. Elsewhere print them as a line whenever they have changed."""
    last: list[dict[str, Any]] = []

    def show(counts: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        groups = [("-" if each["value"] is None else each["value"], f"{each['count']:,}") for each in counts["groups"]]
        total = f"{'about ' if counts['approximate'] else ''}{counts['total']:,}"
        if not as_json and sys.stdout.isatty():
            width = max([len(printable(value)) for value, _ in groups], default=0)
            _redraw(
                [f"{_time(now)}  total {total}", *(f"{printable(value):{width}}  {count}" for value, count in groups)]
            )
        elif last != [counts]:
            last[:] = [counts]
            parts = [_time(now), *(f"{printable(value)}={count}" for value, count in groups), f"total={total}"]
            _line(json.dumps(counts, ensure_ascii=False) if as_json else "  ".join(parts))

    _repeat(load, show, every_s, quiet=as_json)


def _repeat(load: Callable[[], Any], show: Callable[[Any], None], every_s: float, *, quiet: bool) -> None:
    failed = waiting_printer(AWAY_FOR_S, quiet=quiet)
    try:
        while True:
            show(retry_temporary(load, timeout_s=AWAY_FOR_S, on_failure=failed))
            time.sleep(every_s)
    except KeyboardInterrupt:
        return


def _screen(rows: Sequence[Sequence[str]], now: datetime) -> list[str]:
    size = shutil.get_terminal_size()
    shown = rows[: max(1, size.lines - _ROWS_ELSE)]
    more = [f"… and {len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    return [f"{_time(now)}  Ctrl-C ends this.", *table_lines(JOBS, shown, size.columns), *more]


def _redraw(lines: Sequence[str]) -> None:
    click.echo(_CLEAR + "\n".join(lines))


def _line(text: str) -> None:
    click.echo(printable(text))
    sys.stdout.flush()


def _time(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%SZ}"
