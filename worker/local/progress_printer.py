"""Prints the progress of a long run: short lines, and a progress bar on a terminal."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ProgressPrinter:
    """Prints to standard output; usable by several threads."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)

    def title(self, text: str) -> None:
        """Print a line in bold."""
        self._console.print(f"[bold]{escape(text)}[/bold]")

    def print_line(self, text: str) -> None:
        """Print an indented line."""
        self._console.print(f"  {escape(text)}")

    @contextmanager
    def progress(self, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that shows the number of done bytes: as a bar on a terminal, else a line for each tenth."""
        if self._console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task("", total=total_bytes)
                yield lambda done: bar.update(task, completed=done)
        else:
            yield _Lines(self, total_bytes).show

    def _bar(self) -> Progress:
        columns = (BarColumn(40), TaskProgressColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        return Progress("  ", *columns, console=self._console)


class _Lines:
    def __init__(self, printer: ProgressPrinter, total_bytes: int) -> None:
        self._printer = printer
        self._total = total_bytes
        self._last_tenth = -1
        self._began = time.monotonic()

    def show(self, done: int) -> None:
        if (tenth := 10 * done // self._total) > self._last_tenth:
            self._last_tenth = tenth
            rate = done / 1e6 / max(time.monotonic() - self._began, 1e-3)
            self._printer.print_line(f"{done / self._total:4.0%}  {done:>13,} bytes  {rate:5.1f} MB/s")
