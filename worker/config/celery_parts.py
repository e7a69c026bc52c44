"""Which parts of Celery and kombu a process uses: the short path of Sliceway, or the stock parts.

The short path is a task strategy, a pool, message templates and a transport for Redis. They override what Celery and
kombu do not document, so they serve the versions that they were written for and no others.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.config.settings import Settings

WRITTEN_FOR = {"celery": "5.7", "kombu": "5.7"}
STOCK_THREADS = 8
"""Threads of a process with the stock parts: Celery's pool has a fixed number of them."""
STOCK_ADVICE = "Uploads work, for more CPU a slice. Unset SLICEWAY_CELERY, and install the versions named."


def why_stock(settings: Settings) -> str | None:
    """Return why the stock parts are used, as a clause; None: the short path is."""
    return "SLICEWAY_CELERY is stock" if settings.celery == "stock" else _unknown_versions()


def threads(settings: Settings) -> int | None:
    """Return the fixed number of slices that a process sends at once; None: as many as pay."""
    return settings.worker_threads or (STOCK_THREADS if why_stock(settings) else None)


@cache
def _unknown_versions() -> str | None:
    found = {name: version(name) for name in WRITTEN_FOR}
    unknown = [f"{name} is {found[name]}" for name, known in WRITTEN_FOR.items() if not _is_of(found[name], known)]
    if not unknown:
        return None
    known = " and ".join(f"{name} {known}" for name, known in WRITTEN_FOR.items())
    return f"{' and '.join(unknown)}, and the short path was written for {known}"


def _is_of(found: str, series: str) -> bool:
    return found.split(".")[:2] == series.split(".")
