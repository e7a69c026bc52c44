"""A million ended jobs and a hundred thousand live ones: how long counts and lists take.

    python tests/benchmarks/finding.py [--ended 1000000] [--live 100000]

The rows are made by SQL: one job in twenty failed, every second one with labels. What is measured are the functions
that the API calls. The same lives of small jobs run with the indexes that only counts and lists need, and without them,
in turns.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from bench_environment import bench_environment, halted
from measure import out
from report import Report, parser

from worker.db.pool import Database, conninfo
from worker.ids import new_id
from worker.jobs import counts, filters, queries, transitions, workers
from worker.jobs.leases import Acknowledged, Claim
from worker.jobs.models import Job
from worker.jobs.rows import OpenedSession
from worker.jobs.statements import texts
from worker.jobs.states import JobState
from worker.jobs.transitions import NewJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench_environment import BenchEnvironment

    from worker.db.pool import Connection

RUNS, LIVES, ROUNDS = 20, 500, 6
OURS = ("ix_job_ended", "ix_job_ended_key", "ix_job_failed_id")
GROUPINGS = ("state", "store", "tenant", "error_code", "label.kind")
COUNTED = ("", "state=failed", "state=queued", "store=store1", "tenant=tenant3", "error_code=source_gone",
           "label.order=16", "key_prefix=videos/7/", "since=24h", "state=failed&older_than=1d")  # fmt: skip
LISTED = ("", "state=failed", "state=queued", "state=cancelling", "state=initializing", "store=store1", "store=nowhere",
          "tenant=tenant3", "tenant=tenant3&state=failed", "error_code=source_gone", "error_code=none",
          "label.order=16", "label.order=none", "key_prefix=videos/7/", "key_prefix=none/", "since=24h",
          "older_than=20d",
          "state=failed&store=store1&label.order=16&error_code=source_gone&older_than=1h")  # fmt: skip
SESSION = OpenedSession(
    handle={"handle": "s"}, fingerprint={"size": 20}, size_bytes=20, slice_bytes=10, ordered=False, total=2, held=[],
    bytes_done=0,
)  # fmt: skip
_ROWS = """
INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, labels, verify, retry_for_s,
  created_at, started_at, finished_at, updated_at, size_bytes, slices_total, slices_left, bytes_done, error,
  failure_code, result)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid,
  'tenant' || n / 3 %% 10, state,
  CASE WHEN state IN ('queued', 'finishing', 'cancelling') THEN 'pending' ELSE 'idle' END, 5,
  jsonb_build_object('kind', 'file', 'root', 'media', 'path', 'video/' || n || '.mp4'), 'store' || n / 11 %% 5,
  'videos/' || n %% 100 || '/' || n || '.mp4', %(name)s || '/media/videos/' || n %% 100 || '/' || n || '.mp4', false,
  CASE WHEN n %% 2 = 0 THEN jsonb_build_object('order', (n %% 1000)::text, 'kind', 'k' || n %% 7) ELSE '{}' END,
  'auto', 86400, at, at, CASE WHEN %(ended)s THEN at + interval '1 min' END, at, 2000000, 30, 29, 65536,
  CASE WHEN code IS NOT NULL THEN jsonb_build_object('code', code, 'advice', 'Retry.', 'message',
    'a sentence that says what went wrong with this job') END,
  CASE WHEN state = 'failed' THEN code END,
  CASE WHEN state = 'succeeded' THEN jsonb_build_object('size_bytes', 2000000, 'proof', 'mark', 'tag', md5(n::text)) END
FROM (
  SELECT n, now() - (%(since_s)s + (%(count)s - n) * %(each_s)s) * interval '1 s' AS at,
    CASE WHEN %(ended)s AND n %% 20 = 0
           THEN (ARRAY['source_gone', 'object_exists', 'store_refused', 'unproven'])[n / 20 %% 4 + 1]
         WHEN NOT %(ended)s AND n %% 10 = 3 THEN 'store_unavailable' END AS code,
    CASE WHEN %(ended)s THEN CASE WHEN n %% 20 = 0 THEN 'failed' WHEN n %% 50 = 1 THEN 'cancelled' ELSE 'succeeded' END
         WHEN n %% 100 = 7 THEN 'uploading' WHEN n %% 1000 = 9 THEN 'finishing'
         WHEN n %% 1000 = 11 THEN 'cancelling' ELSE 'queued' END AS state
  FROM generate_series(1, %(count)s) n
) g"""


def main() -> None:
    """Measure and print the tables."""
    options = parser(__doc__)
    options.add_argument("--ended", type=int, default=1_000_000, help="(default: %(default)s)")
    options.add_argument("--live", type=int, default=100_000, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with bench_environment() as site:
        report.seen_on(site.running)
        with halted(site):
            fill(site, given.ended, given.live)
            database = Database(site.running.settings.database_url, keep=texts())
            counted, listed = list(counts_of(database)), list(lists_of(database))
            database.close()
            cost = costs(site)
    title = f"{given.ended:,} ended jobs and {given.live:,} live ones"
    columns = ("what", "p50 ms", "most ms", "")
    report.table(f"Counts of {title}, of {RUNS} runs", columns, [each[0] for each in counted])
    report.table(f"Lists of {title}, pages of 50, of {RUNS} runs", columns, [each[0] for each in listed])
    report.table(f"{LIVES} lives of small jobs, medians of {ROUNDS} rounds", COST_COLUMNS, cost)
    report.figures = {
        "counts, most p50 ms": max(each[1] for each in counted), "lists, most p50 ms": max(each[1] for each in listed),
    }  # fmt: skip
    report.publish(given.json)


def fill(site: BenchEnvironment, ended: int, live: int) -> None:
    """Make the jobs of a month, and let the database take stock as its autovacuum would."""
    with psycopg.connect(conninfo(site.running.settings.database_url), autocommit=True) as database:
        month = {"since_s": 7200, "each_s": 30 * 86_400 / max(1, ended)}
        database.execute(_ROWS, {"ended": True, "count": ended, "name": uuid4().hex, **month})
        database.execute(_ROWS, {"ended": False, "count": live, "name": uuid4().hex, "since_s": 0, "each_s": 0.07})
        database.execute("VACUUM ANALYZE job")


def counts_of(database: Database) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the row and the median, in ms, of each count."""
    for group_by in GROUPINGS:
        for query in COUNTED if group_by == "state" else COUNTED[:2]:
            which = filters.parse(query)
            took_ms, found = timed(lambda which=which, by=group_by: counts.count_jobs(database, which, by))
            kind = f"about {found.total:,} jobs" if found.approximate else f"{found.total:,} jobs"
            yield row(f"by {group_by}" + (f", {query}" if query else ""), took_ms, kind)


def lists_of(database: Database) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the row and the median, in ms, of each list."""
    for oldest in (False, True):
        for query in LISTED:
            which = filters.parse(query)
            took_ms, page = timed(
                lambda which=which, oldest=oldest: queries.list_jobs(
                    database, which, after=None, limit=50, oldest_first=oldest
                )
            )
            name = f"{query or 'all'}, {'oldest' if oldest else 'newest'} first"
            yield row(name, took_ms, f"{len(page.rows)}{' and more' if page.more else ''}")


def timed(work: Callable[[], Any]) -> tuple[list[float], Any]:
    """Return the milliseconds of each run, and what the last one returned."""
    took_ms, found = [], None
    for _ in range(RUNS):
        began = time.perf_counter()
        found = work()
        took_ms.append((time.perf_counter() - began) * 1e3)
    return took_ms, found


def row(name: str, took_ms: list[float], found: str) -> tuple[tuple[str, ...], float]:
    """The cells of a query, and its median."""
    median = statistics.median(took_ms)
    out.print(f"{name}: {median:.1f} {max(took_ms):.1f} {found}")
    return (name, f"{median:.1f}", f"{max(took_ms):.1f}", found), median


COST_COLUMNS = (
    "indexes for ended jobs",
    "enqueue, µs",
    "checkpoint, µs",
    "success, µs",
    "Postgres, CPU µs a life",
    "WAL bytes",
)


def costs(site: BenchEnvironment) -> list[tuple[str, ...]]:
    """The rows of lives with our indexes and without them; they alternate, and which begins alternates, too."""
    url = site.running.settings.database_url
    database = Database(url, plan_once=True, keep=texts())
    made = {index.name: index for index in Job.__table__.indexes}  # type: ignore[attr-defined]
    found: dict[bool, list[tuple[float, ...]]] = {True: [], False: []}
    with psycopg.connect(conninfo(url), autocommit=True) as admin, database.connection() as tx:
        worker = uuid4()
        workers.start_worker(tx, worker, "bench", slots=8, roots=["files"])
        live(tx, worker, LIVES)  # the statements are planned
        for number in range(2 * ROUNDS):
            indexed = number % 4 in {0, 3}
            for name in OURS:  # built in either case: that alone leaves the caches another
                admin.execute(f"DROP INDEX IF EXISTS {name}")
                with database.engine.connect() as connection:
                    made[name].create(connection)
                if not indexed:
                    admin.execute(f"DROP INDEX {name}")
            admin.execute("CHECKPOINT")
            live(tx, worker, LIVES // 10)  # what is written first after a checkpoint is written whole
            before = wal_bytes(tx)
            began_s = cpu_s(tx.info.backend_pid)
            took = live(tx, worker, LIVES)
            used_us = (cpu_s(tx.info.backend_pid) - began_s) * 1e6 / LIVES
            found[indexed].append((*took, used_us, (wal_bytes(tx) - before) / LIVES))
        workers.stop_worker(tx, worker)
    database.close()
    return [
        (name, *(f"{statistics.median(each):,.0f}" for each in zip(*found[indexed], strict=True)))
        for name, indexed in (("without", False), ("with", True))
    ]


def wal_bytes(tx: Connection) -> int:
    """The bytes of WAL that a connection's own statements have written; PostgreSQL 18 counts them."""
    tx.execute("SELECT pg_stat_force_next_flush()")
    [row] = tx.execute("SELECT wal_bytes FROM pg_stat_get_backend_wal(pg_backend_pid())")
    return int(row["wal_bytes"])


def cpu_s(pid: int) -> float:
    """The CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def live(tx: Connection, worker: Any, count: int) -> tuple[float, float, float]:
    """Let so many jobs live; returns the median µs of an enqueue, a checkpoint and a success."""
    took: list[tuple[float, ...]] = []
    for number in range(count):
        job_id = new_id()
        key = f"lives/{job_id}"
        job = NewJob(
            job_id, f"tenant{number % 10}", 5, {"kind": "file", "root": "files", "path": key}, "store1", key, key,
            False, None, {"order": str(number)} if number % 2 else {}, "auto", None, 86_400, None, None,
        )  # fmt: skip
        times = [time.perf_counter()]
        transitions.enqueue(tx, [job], "bench")
        times.append(time.perf_counter())
        transitions.dispatch(tx, [job_id], [])
        step = Claim(job_id, None, 1, 1, worker)
        transitions.claim_step(tx, step, JobState.QUEUED, timedelta(minutes=1))
        transitions.open_session(tx, step, SESSION)
        transitions.dispatch(tx, [], [(job_id, 0), (job_id, 1)])
        claims = [Claim(job_id, each, 1, 1, worker) for each in (0, 1)]
        for claim in claims:
            transitions.claim_slice(tx, claim, low_speed=1000, slack=timedelta(minutes=1))
        times.append(time.perf_counter())
        transitions.checkpoint(tx, [Acknowledged(claims[0], "t", None)], worker)
        times.append(time.perf_counter())
        transitions.checkpoint(tx, [Acknowledged(claims[1], "t", None)], worker)
        transitions.dispatch(tx, [job_id], [])
        finish = Claim(job_id, None, 2, 1, worker)
        transitions.claim_step(tx, finish, JobState.FINISHING, timedelta(minutes=1))
        times.append(time.perf_counter())
        transitions.succeed(tx, finish, {"size_bytes": 20, "proof": "mark"})
        times.append(time.perf_counter())
        took.append((times[1] - times[0], times[3] - times[2], times[5] - times[4]))
    enqueued, checkpointed, succeeded = (statistics.median(each) * 1e6 for each in zip(*took, strict=True))
    return enqueued, checkpointed, succeeded


if __name__ == "__main__":
    main()
