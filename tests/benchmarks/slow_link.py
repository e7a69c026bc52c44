"""Files over slow links: whether they end, how long they take, and what is sent twice.

    python tests/benchmarks/slow_link.py [--long]

Each file takes its link two minutes, and has twenty slices or more. The links of one speed are used side by side, each
by one file at a store of its own: with little and with large socket buffers, and through a relay that passes on what
it can or one that takes all at once, as a proxy does.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from bench_environment import BenchEnvironment, bench_environment
from measure import KIB, MIB, api_of, out
from report import Report, parser

from tests.support.relay import Link, Relay
from tests.support.store import profile
from worker.db.pool import conninfo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import Connection

    from tests.support.stores_file import Table

SECONDS, SLICES_LEAST = 120, 20
NEVER = 1e9
MAX_RATIO = 4.0
"""After so many times as long as the link alone needs, the wait for a file ends."""
BUFFERS = {
    f"{size_bytes // KIB:,} KiB, {'takes all' if takes_all else 'passes on'}": (size_bytes, takes_all)
    for size_bytes in (32 * KIB, 4 * MIB)
    for takes_all in (False, True)
}
_JOBS = """
  SELECT j.key, j.state, j.attempts + coalesce((j.result->'slices'->>'failed_attempts')::int, 0),
         extract(epoch FROM j.finished_at - j.created_at)::float8
  FROM job j WHERE j.key = ANY(%s)"""


@dataclass(frozen=True, slots=True)
class Case:
    """A speed, and the file that is sent at it."""

    name: str
    rate_bytes_per_s: int
    slice_bytes: int
    slices: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        slices = self.slices or max(SLICES_LEAST, -(-SECONDS * self.rate_bytes_per_s // self.slice_bytes))
        return slices * self.slice_bytes

    @property
    def least_s(self) -> float:
        """What the link alone needs for it."""
        return self.size_bytes / self.rate_bytes_per_s

    def key(self, number: int) -> str:
        """Of the file on the link with this number, and name of the store behind it."""
        return f"link-{self.rate_bytes_per_s}-{self.slice_bytes}-{number}"


SHORT = (Case("256 KiB/s, 512 KiB", 256 * KIB, 512 * KIB), Case("1 MB/s, 3 MiB", 1_000_000, 3 * MIB))
SIX = Case("64 KiB/s, 3 MiB", 64 * KIB, 3 * MIB, slices=6)
LONG = (Case("64 KiB/s, 512 KiB", 64 * KIB, 512 * KIB), SIX, *SHORT, Case("10 MB/s, 3 MiB", 10_000_000, 3 * MIB))


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file."""

    case: Case
    link: str
    state: str
    took_s: float
    sent_bytes: int
    attempts: int

    @property
    def ratio(self) -> float:
        """How many times as long as the link alone needs; `NEVER` if it did not succeed."""
        return self.took_s / self.case.least_s if self.state == "succeeded" else NEVER

    @property
    def twice_bytes(self) -> int:
        """What was sent beyond the file."""
        return max(0, self.sent_bytes - self.case.size_bytes)

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        twice = f"{100 * self.twice_bytes / self.case.size_bytes:.1f}"
        return (
            self.case.name, self.link, f"{self.case.size_bytes / MIB:.1f}", self.state, f"{self.took_s:.0f}",
            f"{self.ratio:.2f}", twice, str(self.attempts),
        )  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--long", action="store_true", help="64 KiB/s and 10 MB/s, too")
    options.add_argument("--only", help="speeds whose names begin so")
    given = options.parse_args()
    cases = [case for case in (LONG if given.long else SHORT) if case.name.startswith(given.only or "")]
    report, sent = Report(), list[Sent]()
    with (
        ExitStack() as relays,
        bench_environment("--discard", more_stores=lambda url: stores(relays, url, cases)) as site,
    ):
        for case in cases:
            out.print(f"{case.name}: {case.least_s:.0f} s at least")
            sent += send(site, case)
            site.forget()
        report.seen_on(site.running)
    columns = (
        "speed, slices",
        "socket buffers, relay",
        "MiB",
        "state",
        "s",
        "x size / bandwidth",
        "% twice",
        "attempts",
    )
    report.table("One file on each link", columns, [each.cells() for each in sent])
    report.figures = figures(sent)
    report.publish(given.json)


def stores(relays: ExitStack, url: str, cases: Sequence[Case]) -> dict[str, Table]:
    """Open every link; return the profiles of the stores behind them."""
    port, profiles = int(url.rpartition(":")[2]), {}
    for case in cases:
        for number, (size_bytes, takes_all) in enumerate(BUFFERS.values()):
            link = Link(case.rate_bytes_per_s, size_bytes, takes_all)
            relay = relays.enter_context(closing(Relay(port, link)))
            near = f"http://127.0.0.1:{relay.port}"
            profiles[case.key(number)] = profile(near, slice_bytes=case.slice_bytes)
    return profiles


def send(site: BenchEnvironment, case: Case) -> list[Sent]:
    """Send a file over each link of one speed; return what became of them."""
    keys = {case.key(number): link for number, link in enumerate(BUFFERS)}
    site.sparse("file", case.size_bytes)
    source = {"kind": "file", "root": "files", "path": "file"}
    site.control.clear_requests()
    with api_of(site.running) as api:
        for key in keys:
            api.post("/v1/jobs", json={"source": source, "store": key, "key": key}).raise_for_status()
    url = conninfo(site.running.settings.database_url)
    with psycopg.connect(url, autocommit=True) as database:
        rows = ended(database, list(keys), case.least_s * MAX_RATIO)
    journal = site.control.requests(op="data")
    return [
        Sent(case, keys[key], state, took_s or case.least_s * MAX_RATIO, received(journal, key), attempts)
        for key, state, attempts, took_s in rows
    ]


def ended(database: Connection[Any], keys: list[str], seconds: float) -> list[tuple[Any, ...]]:
    """Wait so long for the jobs to end; return their rows."""
    until_s = time.monotonic() + seconds
    while True:
        rows = sorted(database.execute(_JOBS, [keys]).fetchall())
        if time.monotonic() > until_s or all(took_s is not None for *_, took_s in rows):
            return rows
        threading.Event().wait(0.5)


def received(journal: Sequence[Mapping[str, Any]], key: str) -> int:
    """How many bytes of slices came for a key, cut-off ones as far as they came."""
    return sum(entry["size"] or 0 for entry in journal if entry["path"] == key)


def figures(sent: Sequence[Sent]) -> dict[str, float]:
    """What the bars ask for."""
    usual, six = [each for each in sent if each.case is not SIX], [each for each in sent if each.case is SIX]
    found = {
        "x size / bandwidth": max((each.ratio for each in sent), default=0.0),
        "% sent twice": max((100 * each.twice_bytes / each.case.size_bytes for each in usual), default=0.0),
        "attempts": max((float(each.attempts) for each in sent), default=0.0),
    }
    if six:
        found["slices twice"] = max(each.twice_bytes for each in six) / SIX.slice_bytes
    return found


if __name__ == "__main__":
    main()
