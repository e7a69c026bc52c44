"""The databases under the tests of `worker.jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.integration.jobs.database import JobsDatabase
from worker.db.pool import Database, conninfo
from worker.jobs.statements import texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.postgres import EmbeddedPostgres


JOBS = "jobs"


@pytest.fixture(scope="session")
def jobs_pool(postgres: EmbeddedPostgres, template_database: str) -> Iterator[Database]:
    """One database for all tests; each test empties it, which is faster than a new database."""
    yield from _database(postgres, template_database, JOBS)


@pytest.fixture
def db(postgres: EmbeddedPostgres, jobs_pool: Database) -> JobsDatabase:
    """An empty database with one live worker."""
    made = JobsDatabase(jobs_pool, postgres.url_of(JOBS))
    made.clear()
    made.worker = made.start_worker()
    return made


@pytest.fixture(scope="module")
def shared_db(
    postgres: EmbeddedPostgres, template_database: str, request: pytest.FixtureRequest
) -> Iterator[JobsDatabase]:
    """A database for a whole module whose tests commit nothing."""
    name = request.module.__name__.rpartition(".")[-1]
    for database in _database(postgres, template_database, name):
        made = JobsDatabase(database, postgres.url_of(name))
        made.worker = made.start_worker()
        yield made


def _database(postgres: EmbeddedPostgres, template: str, name: str) -> Iterator[Database]:
    with psycopg.connect(conninfo(postgres.url_of("postgres")), autocommit=True) as connection:
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
    database = Database(postgres.url_of(name), pool_size=10, keep=texts())
    yield database
    database.close()  # the server and its databases end with the test session
