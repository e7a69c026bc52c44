"""A store that takes eight seconds for each slice, and another tenant's small files to one that is well.

    python tests/benchmarks/slow_store.py [--files 40]

The slow store's job comes first and has more slices than there are slots; the small files come when its slices hold as
many slots as they ever do. What is measured is when the first and the last of the small files has succeeded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
from bench_environment import bench_environment
from measure import KIB, MIB, api_of
from report import Report, parser

from tests.support.api import api_client, create_api_key
from tests.support.store import profile
from worker.db.pool import conninfo
from worker.jobs.api_keys import Scope
from worker.local.process import wait_until

if TYPE_CHECKING:
    from bench_environment import BenchEnvironment

ANSWER_S = 8.0
SLICES = 200
HELD_FOR_S = 40.0
"""Five answers in a row: what the slow store is given, it has by then."""
_DEADLINE_S = 600.0
_ENDS = """
  SELECT extract(epoch FROM min(finished_at) - min(created_at))::float8,
         extract(epoch FROM max(finished_at) - min(created_at))::float8
  FROM job WHERE tenant = 'other' AND state = 'succeeded' HAVING count(*) = %s"""


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--files", type=int, default=40, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with bench_environment("--discard", more_stores=lambda url: {"slow": profile(url, slice_bytes=MIB)}) as site:
        held = begin_slow(site)
        first_s, last_s = small_files(site, given.files)
        report.seen_on(site.running)
    columns = ("small files", "slices under way at the slow store", "first of them, s", "last of them, s")
    row = (f"{given.files}", f"{held}", f"{first_s:.2f}", f"{last_s:.2f}")
    report.table(f"Beside a store that takes {ANSWER_S:g} s for each slice", columns, [row])
    report.figures = {"first, s": first_s, "last, s": last_s}
    report.publish(given.json)


def begin_slow(site: BenchEnvironment) -> int:
    """Enqueue the slow store's job; return how many of its slices are under way when it has all that it gets."""
    site.control.add_rule("delay", op="data", path="slow", delay_s=ANSWER_S)
    site.sparse("large", SLICES * MIB)
    source = {"kind": "file", "root": "files", "path": "large"}
    with api_of(site.running) as api:
        api.post("/v1/jobs", json={"source": source, "store": "slow", "key": "slow"}).raise_for_status()
    under_way = "SELECT count(*) FROM slice WHERE state = 'sending'"
    until_s = time.monotonic() + HELD_FOR_S
    with psycopg.connect(conninfo(site.running.settings.database_url), autocommit=True) as database:
        assert wait_until(lambda: time.monotonic() > until_s, timeout_s=_DEADLINE_S, poll_s=0.5)
        row = database.execute(under_way).fetchone()
    assert row is not None
    return int(row[0])


def small_files(site: BenchEnvironment, count: int) -> tuple[float, float]:
    """Upload small files for another tenant; return after how many seconds the first and the last were there."""
    site.sparse("small", KIB)
    source = {"kind": "file", "root": "files", "path": "small"}
    jobs = [{"source": source, "store": "store3", "key": f"small/{number}"} for number in range(count)]
    key = create_api_key(site.running.settings.database_url, "other", [Scope.SUBMIT])
    with api_client(str(site.running.settings.api_url), key) as api:
        api.post("/v1/jobs/batch", json={"jobs": jobs}).raise_for_status()
    found: list[tuple[float, float]] = []
    with psycopg.connect(conninfo(site.running.settings.database_url), autocommit=True) as connection:

        def ended() -> bool:
            found.extend(connection.execute(_ENDS, [count]).fetchall())
            return bool(found)

        assert wait_until(ended, timeout_s=_DEADLINE_S, poll_s=0.1), "small files are stuck"
    return found[0]


if __name__ == "__main__":
    main()
