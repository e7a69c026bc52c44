"""Databases of a test's own, each a copy of a migrated template."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.local.postgres import EmbeddedPostgres

TEMPLATE = "sliceway_template"


def make_template(postgres: EmbeddedPostgres, name: str = TEMPLATE) -> str:
    """Make a migrated database; returns its name."""
    from worker.db.migrate import migrate  # noqa: PLC0415 - only tests with a database need all that

    create_database(postgres, "template0", name)
    migrate(postgres.url_of(name))
    return name


def create_database(postgres: EmbeddedPostgres, template: str, name: str | None = None) -> str:
    """Copy a database, to which nothing may be connected; returns the name of the copy."""
    name = name or f"test_{uuid.uuid4().hex[:12]}"
    _administer(postgres, "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)
    return name


def drop_database(postgres: EmbeddedPostgres, name: str) -> None:
    """Remove a database; connections to it end."""
    _administer(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def database_of(postgres: EmbeddedPostgres, template: str, name: str | None = None) -> Iterator[str]:
    """Have a copy of a database; yields its SQLAlchemy URL."""
    name = create_database(postgres, template, name)
    yield postgres.url_of(name)
    drop_database(postgres, name)


def _administer(postgres: EmbeddedPostgres, statement: str, *names: str) -> None:
    dsn = postgres.url_of("postgres").replace("+psycopg", "")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
