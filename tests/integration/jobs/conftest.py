"""Databases for the statements, each with the db on which a test works."""

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
def jobs_database(postgres: EmbeddedPostgres, template_database: str) -> Iterator[Database]:
    """One database for all tests of statements: they empty it, which is faster than a new one each."""
    yield from _database(postgres, template_database, JOBS)


@pytest.fixture
def db(postgres: EmbeddedPostgres, jobs_database: Database) -> JobsDatabase:
    """An empty db with one worker."""
    made = JobsDatabase(jobs_database, postgres.url_of(JOBS))
    made.clear()
    made.worker = made.start_worker()
    return made


@pytest.fixture(scope="module")
def shared_db(
    postgres: EmbeddedPostgres, template_database: str, request: pytest.FixtureRequest
) -> Iterator[JobsDatabase]:
    """A db for a whole module whose tests commit nothing."""
    name = request.module.__name__.rpartition(".")[-1]
    for database in _database(postgres, template_database, name):
        made = JobsDatabase(database, postgres.url_of(name))
        made.worker = made.start_worker()
        yield made


def _database(postgres: EmbeddedPostgres, template: str, name: str) -> Iterator[Database]:
    with psycopg.connect(conninfo(postgres.url_of("postgres")), autocommit=True) as connection:
        words = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**words))
    database = Database(postgres.url_of(name), pool_size=10, keep=texts())
    yield database
    database.close()  # the server goes with the session, and its databases with it
