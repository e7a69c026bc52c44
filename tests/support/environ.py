"""The environments of processes under test."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DEAD_AFTER_S = 3.0
#: Short times, so that a death is noticed soon. A busy machine still answers within them.
QUICK = {"SLICEWAY_HEARTBEAT_S": "0.2", "SLICEWAY_DEAD_AFTER_S": str(DEAD_AFTER_S), "SLICEWAY_LEAD_S": "1.5"}
#: A worker that yields gets next to nothing on a loaded machine, and counts as dead.
NOT_NICE = {"SLICEWAY_WORKER_NICE": "0"}


def importing(name: str, folder: Path) -> dict[str, str]:
    """Return the settings of a process that first imports a module of this folder."""
    return {"SLICEWAY_IMPORT": name, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def clean_environ(*prefixes: str) -> dict[str, str]:
    """Return our environment without settings of Sliceway, and without variables that begin with one of `prefixes`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("SLICEWAY_", *prefixes))}


def system_environ(database_url: str, broker_url: str, stores_file: str, **settings: str) -> dict[str, str]:
    """Return the environment of API and workers on these servers."""
    servers = {
        "SLICEWAY_DATABASE_URL": database_url,
        "SLICEWAY_BROKER_URL": broker_url,
        "SLICEWAY_STORES_FILE": stores_file,
    }
    output = {"SLICEWAY_LOG_FORMAT": "text", "PYTHONUNBUFFERED": "1"}
    return clean_environ() | servers | output | NOT_NICE | settings
