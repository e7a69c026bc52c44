"""What a case found: tables for people and figures for the bars; printed, and written as JSON if that is wanted."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from measure import machine, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.local.system import Running


@dataclass(slots=True)
class Table:
    """A title, and below it cells as they are read."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class Report:
    """The findings of one case."""

    tables: list[Table] = field(default_factory=list)
    #: What the bars ask for; `bars` has the names.
    figures: dict[str, float] = field(default_factory=dict)
    machine: list[str] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        self.tables.append(Table(title, columns, rows))

    def seen_on(self, running: Running) -> None:
        """Note the machine, the versions and the command."""
        self.machine = machine(running)

    def publish(self, path: Path | None) -> None:
        """Print everything; write it to ``path``, too, if there is one."""
        for table in self.tables:
            show(table.title, table.columns, table.rows, self.machine if table is self.tables[-1] else ())
        if path is not None:
            path.write_text(json.dumps(asdict(self)))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return the parser of a case, to which it adds its own options."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, help="write tables and figures to this file, too")
    return options
