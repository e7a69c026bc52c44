"""Runs the migrations: one process at a time, and never waiting long for a lock that running work holds."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import pool, text

from worker.config.settings import load_settings
from worker.db.session_settings import engine
from worker.jobs.process_models import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from worker.db.url import DatabaseUrl

LOCK = 7_536_914_302  # any number of our own: the advisory lock under which migrations run
ASK_AGAIN_S = 0.2


def run() -> None:
    """Migrate the database that the caller named, or that the settings name."""
    made = engine(_url(), poolclass=pool.NullPool)
    with _alone(made), made.connect() as connection:
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()


@contextmanager
def _alone(made: Engine) -> Iterator[None]:
    """Hold the lock, by a transaction of its own: a migration that builds an index concurrently has none."""
    with made.connect() as connection:
        # a statement that waits for the lock would hold a snapshot, and building an index concurrently waits for that;
        # so would one with a parameter, whose portal stays open until the next statement
        while not connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({LOCK})")):
            connection.rollback()
            time.sleep(ASK_AGAIN_S)
        yield


def _url() -> str | DatabaseUrl:
    """Return where the tables are, past a pooler: it takes no session settings."""
    given: str | DatabaseUrl | None = context.config.attributes.get("url")
    if given:
        return given
    settings = load_settings()
    return settings.database_direct_url or settings.database_url


if context.is_offline_mode():
    msg = "offline migrations are not served: run `sliceway migrate` against the database"
    raise SystemExit(msg)
run()
