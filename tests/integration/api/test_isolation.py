"""Concurrent requests on a database whose default isolation lets one of two transactions fail."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.api.job_requests import job_body
from worker.db.pool import Database, conninfo
from worker.db.repetition import run_idempotent
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.api.conftest import Api
    from worker.db.pool import Connection

JOBS = 200
WAITING = "SELECT FROM pg_locks WHERE NOT granted"


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read"])
def test_concurrent_cancels_all_succeed(make_api: Callable[..., Api], database_url: str, isolation: str) -> None:
    with psycopg.connect(conninfo(database_url), autocommit=True) as connection:
        database = connection.info.dbname
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'".encode())
    acme = make_api(database_url).client()
    items = [job_body(f"视频/{n}.mov") for n in range(JOBS)]
    answers = acme.post("/v1/jobs/batch", json={"jobs": items}).json()["results"]
    ids = [answer["job"]["id"] for answer in answers]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda job: acme.post(f"/v1/jobs/{job}/cancel"), ids))
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"id": job, "state": "cancelled"}) for job in ids
    ]


def alone(connection: Connection) -> int:
    return connection.execute("UPDATE breaker SET opened_at = now()").rowcount


def after_another(connection: Connection) -> int:
    with connection.transaction():
        connection.execute("SELECT FROM breaker")
        return alone(connection)


@pytest.mark.parametrize("work", [alone, after_another])
def test_a_statement_that_the_server_rolled_back_is_sent_again(
    database_url: str, work: Callable[[Connection], int]
) -> None:
    """Behind a pooler, whose role has no session settings yet."""
    with psycopg.connect(conninfo(database_url), autocommit=True) as other, ThreadPoolExecutor(1) as pool:
        database = other.info.dbname
        other.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'".encode())
        other.execute("INSERT INTO breaker (store, error, probe_at) VALUES ('main', '{}', now())")
        with closing(Database(database_url, pooled=True, application="meets")) as ours:
            with other.transaction():
                other.execute("UPDATE breaker SET probe_at = now()")
                meeting = pool.submit(run_idempotent, ours, work)
                assert wait_until(lambda: other.execute(WAITING).fetchone() is not None, timeout_s=30)
            assert meeting.result(120) == 1
