"""A million ended jobs and a hundred thousand that wait: how long the dispatcher's turn takes, and `GET /v1/why`.

    python tests/benchmarks/full_tables.py [--ended 1000000] [--waiting 100000]

The rows are made by SQL. A turn is the leader's own, taken in this process with a broker that is really there.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import redis
from bench_environment import bench_environment, halted
from celery import Celery
from measure import MIB
from report import Report, parser

from worker.broker.publisher import Broker
from worker.db.pool import Database, conninfo
from worker.dispatch.wakeup import Wakeup
from worker.jobs import why_snapshot, workers
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.statements import texts
from worker.jobs.task_names import QUEUE
from worker.runtime.leader import Leader

if TYPE_CHECKING:
    from bench_environment import BenchEnvironment

TURNS = 200
WHYS = 30
_ROWS = """
  INSERT INTO job (id, tenant, state, step, priority, source, store, key, target, overwrite, labels, verify,
                   retry_for_s, finished_at, size_bytes)
  SELECT gen_random_uuid(), 'tenant' || n %% 10, %(state)s, %(step)s, n %% 10,
         '{"kind":"file","root":"files","path":"none"}', 'store3', %(name)s || n, %(name)s || n, false, '{}', 'auto',
         86400, CASE WHEN %(ended)s THEN now() - n * interval '1 s' END, 65536
  FROM generate_series(1, %(count)s) n"""


def main() -> None:
    """Measure and print the table."""
    options = parser(__doc__)
    options.add_argument("--ended", type=int, default=1_000_000, help="(default: %(default)s)")
    options.add_argument("--waiting", type=int, default=100_000, help="(default: %(default)s)")
    given = options.parse_args()
    report = Report()
    with bench_environment() as site:
        report.seen_on(site.running)
        with halted(site):  # its dispatcher would dispatch what is measured here
            fill(site, state="queued", step="pending", ended=False, count=100)
            few = turns(site)
            fill(site, state="succeeded", step="idle", ended=True, count=given.ended)
            ended = turns(site)
            fill(site, state="queued", step="pending", ended=False, count=given.waiting)
            full = turns(site)
            why_s = statistics.median(whys(site))
    rows = [
        row("100 waiting", few),
        row(f"and {given.ended:,} ended", ended),
        row(f"and {given.waiting:,} more waiting", full),
    ]
    report.table(f"The dispatcher's turn, of {TURNS}", ("tables", "p50 ms", "p99 ms", "broker MiB"), rows)
    report.table("What all of them wait for, of the same tables", ("p50 ms",), [(f"{why_s * 1e3:.1f}",)])
    report.figures = {"turn, ms": statistics.median(full[0]) * 1e3, "broker MiB": full[1], "why, ms": why_s * 1e3}
    report.publish(given.json)


def row(name: str, found: tuple[list[float], float]) -> tuple[str, ...]:
    """The cells of one state of the tables."""
    took_s, broker_mib = sorted(found[0]), found[1]
    p99_s = took_s[int(len(took_s) * 0.99)]
    return name, f"{statistics.median(took_s) * 1e3:.2f}", f"{p99_s * 1e3:.2f}", f"{broker_mib:.1f}"


def fill(site: BenchEnvironment, *, state: str, step: str, ended: bool, count: int) -> None:
    """Make jobs, and let the database take stock as its autovacuum would."""
    with psycopg.connect(conninfo(site.running.settings.database_url), autocommit=True) as database:
        name = uuid4().hex
        database.execute(_ROWS, {"state": state, "step": step, "ended": ended, "count": count, "name": name})
        database.execute("VACUUM ANALYZE job")


def whys(site: BenchEnvironment) -> list[float]:
    """Seconds of each of some answers to why jobs wait, as `GET /v1/why` reads them for a key that sees all."""
    settings, took = site.running.settings, []
    key = ApiKey(uuid4(), "bench", "bench", frozenset({Scope.ADMIN}), datetime.now(UTC))
    database = Database(settings.database_url, keep=texts())
    with database.connection() as connection:
        for _ in range(WHYS):
            began = time.perf_counter()
            found = why_snapshot.queue_why(connection, key, settings)
            took.append(time.perf_counter() - began)
    database.close()
    assert found.waiting > 0
    return took


def turns(site: BenchEnvironment) -> tuple[list[float], float]:
    """Seconds of each of many turns, all of which dispatch what sixteen free slots take; most MiB of the broker."""
    settings = site.running.settings
    url = settings.broker_url.for_kombu().rsplit("/", 1)[0] + "/2"
    database = Database(settings.database_url, plan_once=True, keep=texts())
    worker = uuid4()
    took, most_bytes = [], 0
    with Celery("bench", broker=url, set_as_current=False) as app, redis.Redis.from_url(url) as broker:
        app.conf.update(task_default_queue=QUEUE, task_serializer="json")
        leader = Leader(
            db=database, broker=Broker(app), wakeup=Wakeup(settings.database_url), settings=settings, holder=worker,
            store_caps={},
        )  # fmt: skip
        with database.connection() as tx:
            workers.start_worker(tx, worker, "bench", slots=8, roots=["files"])
            for _ in range(TURNS):
                workers.heartbeat(tx, worker, slots=4, roots=["files"], claimed_through=None)
                began = time.perf_counter()
                leader._work(tx)
                took.append(time.perf_counter() - began)
                assert tx.execute("UPDATE job SET step = 'pending' WHERE step = 'dispatched'").rowcount > 0
                most_bytes = max(most_bytes, broker.info("memory")["used_memory"])
                broker.delete(QUEUE)
            workers.stop_worker(tx, worker)
    database.close()
    return took, most_bytes / MIB


if __name__ == "__main__":
    main()
