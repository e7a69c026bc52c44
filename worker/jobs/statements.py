"""The SQL statements of `sql/`, by name."""

from __future__ import annotations

import functools
from importlib.resources import files
from pathlib import Path
from typing import LiteralString


def texts() -> frozenset[str]:
    """Return all statements, for connections that keep a cursor for each."""
    return frozenset(_statements().values())


def sql(name: str) -> LiteralString:
    """Return the statement in `worker/jobs/sql/<name>.sql`."""
    return _statements()[name]


@functools.cache
def _statements() -> dict[str, LiteralString]:
    """Read all of them at once: one that is needed first when no file can be opened any more must be there."""
    found = (files("worker.jobs") / "sql").iterdir()
    return {Path(each.name).stem: each.read_text() for each in found if each.name.endswith(".sql")}
