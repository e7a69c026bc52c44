"""Steady load for an hour: whether tables that are written to all the time grow by more than their rows.

    python tests/benchmarks/steady.py [--minutes 60] [--rate 40]

Small files by batch, so many a second, and a large one now and then; ended jobs stay. Sixty times in all, the rows of
each table that live, those that are dead and wait for autovacuum, and its size with everything that belongs to it.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
from bench_environment import KEY, BenchEnvironment, bench_environment
from measure import KIB, MIB, Sampler, api_of
from report import Report, parser

from worker.db.pool import conninfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LARGE_EVERY_S, LARGE_MIB, SAMPLES = 30, 1024, 60
#: Whether a table keeps its rows; the others are emptied as jobs end, and have their size in bytes read.
KEEPS = {"job": True, "event": True, "slice": False, "worker": False}
_SIZES = """
  SELECT relname, n_live_tup, n_dead_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables
  WHERE relname = ANY(%s)"""


@dataclass(frozen=True, slots=True)
class Size:
    """A table at some time."""

    rows: int
    dead: int
    size_bytes: int

    @property
    def row_bytes(self) -> float:
        """Bytes for each row that lives."""
        return self.size_bytes / max(self.rows, 1)


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=60.0, help="how long (default: %(default)s)")
    options.add_argument("--rate", type=int, default=40, help="small files a second (default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with bench_environment("--discard") as site:
        site.file("small", 64 * KIB)
        site.sparse(KEY, LARGE_MIB * MIB)
        url = conninfo(site.running.settings.database_url)
        with psycopg.connect(url, autocommit=True) as database:
            sampler = Sampler(given.minutes * 60 / SAMPLES, lambda: read_sizes(database))
            sampler.start()
            small, large = load(site, given.minutes * 60, given.rate)
            samples = [*sampler.finish(), read_sizes(database)]
            counts: dict[str, int] = dict(database.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
        report.seen_on(site.running)
    ended = counts.get("succeeded", 0)
    if counts.get("failed"):
        sys.exit(f"{counts['failed']} jobs failed")
    title = (
        f"{small:,} jobs of 64 KiB at {given.rate}/s and {large} of {LARGE_MIB} MiB in {given.minutes:g} minutes, "
        f"of which {ended:,} had ended"
    )
    columns = ("table", "after, minutes", "rows", "dead", "MiB", "bytes a row")
    report.table(title, columns, [row for name in KEEPS for row in rows(name, samples, given.minutes)])
    report.figures = {"growth": max(growth(name, samples) for name in KEEPS)}
    report.publish(given.json)


def load(site: BenchEnvironment, seconds: float, rate: int) -> tuple[int, int]:
    """Enqueue so long; how many small jobs and how many large ones. Each second the store forgets what it has."""
    began, turn, large = time.monotonic(), 0, 0
    with api_of(site.running) as api:
        while turn < seconds:
            threading.Event().wait(max(0.0, began + turn - time.monotonic()))
            jobs = [document("small", f"{turn}/{number}") for number in range(rate)]
            if turn % LARGE_EVERY_S == 0:
                jobs.append(document(KEY, f"{turn}/{KEY}"))
                large += 1
            answer = api.post("/v1/jobs/batch", json={"jobs": jobs}).raise_for_status()
            refused = [each for each in answer.json()["results"] if each["status"] != httpx.codes.ACCEPTED]
            if refused:
                sys.exit(f"refused after {turn} s, for the workers are behind: {refused[0]}")
            site.forget()  # a store that discards slices does not read them
            turn += 1
    return turn * rate, large


def document(file: str, key: str) -> dict[str, Any]:
    """A job."""
    return {"source": {"kind": "file", "root": "files", "path": file}, "store": "store3", "key": key}


def read_sizes(database: psycopg.Connection[Any]) -> dict[str, Size]:
    """All tables now."""
    return {name: Size(*sizes) for name, *sizes in database.execute(_SIZES, [list(KEEPS)]).fetchall()}


def rows(name: str, samples: Sequence[Mapping[str, Size]], minutes: float) -> list[tuple[str, ...]]:
    """The cells of a table at the beginning, after each quarter, and at the end."""
    found: list[tuple[str, ...]] = []
    for quarter in range(5):
        size = samples[(len(samples) - 1) * quarter // 4][name]
        each = f"{size.row_bytes:.0f}" if KEEPS[name] and size.rows else ""
        cells = f"{size.rows:,}", f"{size.dead:,}", f"{size.size_bytes / MIB:.2f}", each
        found.append((name, f"{minutes * quarter / 4:g}", *cells))
    return found


def growth(name: str, samples: Sequence[Mapping[str, Size]]) -> float:
    """What a row takes in the last quarter, x that in the second.

    Of a table that does not keep its rows, what the whole of it takes; less than a MiB counts as one.
    """
    taken = [each[name].row_bytes if KEEPS[name] else max(each[name].size_bytes, MIB) for each in samples]
    quarter = len(taken) // 4
    return statistics.median(taken[-quarter:]) / statistics.median(taken[quarter : 2 * quarter])


if __name__ == "__main__":
    main()
