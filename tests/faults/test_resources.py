"""Servers without a resource: no job is lost, and clients get a clear error."""

from __future__ import annotations

import random
import resource
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg

from tests.faults import network
from tests.faults.network import SCALED
from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.store import SLICE_BYTES
from worker.db.pool import conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation

OTHERS = "datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'sliceway%%'"
#: Returns when they have ended: until then a session still executes statements.
TERMINATE = f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {OTHERS} AND random() < %(share)s"  # noqa: S608


def half_sent(site: Installation) -> Job:
    """A job that is half sent by the only worker."""
    site.workers(1, **SCALED)
    return network.half_sent(site)


def enqueue(site: Installation, key: str) -> httpx.Response:
    """Enqueue a small file, accepted or not; a repeated request has the same idempotency key."""
    (site.media / key).write_bytes(key.encode())
    return site.api.post("/v1/jobs", json=JobSpec(key, key).document, headers={"Idempotency-Key": key})


def accepted(site: Installation, answer: httpx.Response, key: str) -> Job:
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return site.note(Job(site, answer.json()["id"], key, key.encode(), site.media / key))


def refused_for_now(answer: httpx.Response, detail: str) -> None:
    """The answer names the cause and says that the request may be repeated."""
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "database_unavailable"), problem
    assert detail in problem["detail"]
    assert "again" in problem["advice"]
    assert int(answer.headers["Retry-After"]) > 0


def succeeded(*jobs: Job) -> None:
    for job in jobs:
        result = job.succeeds()
        assert (job.row["attempts"], job.row["deaths"], job.row["epoch"]) == (0, 0, 1)
        assert result.get("slices", {}).get("failed_attempts", 0) == 0
        assert job.sent_twice_bytes() <= SLICE_BYTES
    for log in jobs[0].site.logs():
        assert "dispatcher.broken" not in log.read_text()


@contextmanager
def only(site: Installation) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection of the test's own."""
    with psycopg.connect(conninfo(site.database.url), autocommit=True) as connection:
        yield connection


def test_sessions_of_postgres_terminated_at_random(site: Installation) -> None:
    chance = random.Random(20261122)
    job = half_sent(site)
    more = [site.enqueue(2 * MIB) for _ in range(2)]
    for _ in range(15):
        some = partial(site.sql, TERMINATE, share=chance.random())
        site.until(some, "a session to terminate")
    site.store.control.release()
    succeeded(job, *more, accepted(site, enqueue(site, "afterwards"), "afterwards"))


def took_all(site: Installation, connection: psycopg.Connection[tuple[Any, ...]], taken: ExitStack) -> bool:
    """Take every free connection; true if none was left for another client."""
    connection.execute(TERMINATE, {"share": 1})
    took_free(site, taken)
    [others] = connection.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS}", {}).fetchone() or [0]  # noqa: S608
    return others == 0 and took_free(site, taken) == 0  # the last of the others may have ended after the first count


def took_free(site: Installation, taken: ExitStack) -> int:
    count = 0
    with suppress(psycopg.OperationalError):
        while True:
            taken.enter_context(psycopg.connect(conninfo(site.database.url)))
            count += 1
    return count


def test_no_connection_of_postgres_is_left(site: Installation) -> None:
    job = half_sent(site)
    with only(site) as connection, ExitStack() as taken:
        site.until(lambda: took_all(site, connection, taken), "all connections")
        refused_for_now(enqueue(site, "no-connection"), "the database cannot be reached")
        site.store.control.release()
        site.until(lambda: "too many clients" in site.logs()[0].read_text(), "the worker's error")
    succeeded(job, accepted(site, enqueue(site, "no-connection"), "no-connection"))


def test_postgres_is_read_only_for_a_while(site: Installation) -> None:
    job = half_sent(site)
    with only(site) as connection:
        switch = f"ALTER DATABASE {site.database.name} SET default_transaction_read_only = "
        connection.execute((switch + "on").encode())
        connection.execute(TERMINATE, {"share": 1})
        site.until(lambda: "read-only" in enqueue(site, "read-only").json()["detail"], "the API's error")
        refused_for_now(enqueue(site, "read-only"), "the database is read-only")
        site.store.control.release()
        site.until(lambda: "read-only transaction" in site.logs()[0].read_text(), "the worker's error")
        connection.execute((switch + "off").encode())  # existing sessions stay read-only
        site.until(lambda: enqueue(site, "read-only").status_code == httpx.codes.ACCEPTED, "an accepted job")
    succeeded(job, accepted(site, enqueue(site, "read-only"), "read-only"))


def test_valkey_refuses_every_write(site: Installation) -> None:
    job = half_sent(site)
    with site.broker() as broker:
        broker.config_set("maxmemory", "1")
        try:
            waiting = accepted(site, enqueue(site, "full-broker"), "full-broker")
            site.store.control.release()
            site.until(lambda: job.row["slices_left"] == 0, "a checkpoint without a broker")
            site.until(lambda: "dispatcher.broker_lost" in site.logs()[0].read_text(), "the dispatcher's error")
        finally:
            broker.config_set("maxmemory", "0")
    succeeded(job, waiting)


def test_a_worker_that_starts_while_valkey_is_full_stays_and_works_when_there_is_room(site: Installation) -> None:
    site.workers(0)
    with site.broker() as broker:
        broker.config_set("maxmemory", "1")
        try:
            [worker] = site.workers(1)
            job = site.enqueue(2 * SLICE_BYTES)
            site.until(lambda: "dispatcher.broker_lost" in site.logs()[0].read_text(), "the dispatcher's error")
        finally:
            broker.config_set("maxmemory", "0")
    job.succeeds()
    assert worker.alive


def test_valkey_is_frozen_for_half_a_scaled_minute(site: Installation) -> None:
    job = half_sent(site)
    [[end]] = [row.values() for row in site.sql("SELECT now() + interval '3 s' AS at")]
    site.valkey.pause()
    try:
        site.store.control.release()
        waiting = accepted(site, enqueue(site, "still-broker"), "still-broker")
        site.until(lambda: job.row["slices_left"] == 0, "a checkpoint without a broker")
        over = "SELECT now() > %(end)s AS over"
        site.until(lambda: site.sql(over, end=end)[0]["over"], "the time")
    finally:
        site.valkey.resume()
    succeeded(job, waiting)


def test_a_worker_may_open_no_more_files(site: Installation) -> None:
    job = half_sent(site)
    [worker] = site.workers(1, **SCALED)
    limits = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    opened = max(int(each.name) for each in Path(f"/proc/{worker.pid}/fd").iterdir())
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (opened // 2, limits[1]))
    try:
        site.store.control.release()
        waiting = [site.enqueue(1 * MIB), accepted(site, enqueue(site, "no-files"), "no-files")]
        site.sql(TERMINATE, share=1)
        # libpq does not report it, and the source is unavailable, too; which comes first is chance
        signs = ("Too many open files", "root_unavailable", "connection is bad")
        site.until(lambda: any(sign in worker.text() for sign in signs), "the worker's error")
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, limits)
    succeeded(job, *waiting)
    assert worker.alive
    for each in (job, *waiting):
        assert "worker_lost" not in each.kinds  # the worker itself gave its claims back
