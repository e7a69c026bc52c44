"""Runs the migrations: one process at a time, and never waiting long for a lock that running work holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context
from sqlalchemy import pool, text

from worker.jobs.models import Base
from worker.session_settings import engine
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.database_url import DatabaseUrl

LOCK = 7_536_914_302  # any number of our own: the advisory lock under which migrations run


def run() -> None:
    """Migrate the database that the caller named, or that the settings name."""
    with engine(_url(), poolclass=pool.NullPool).begin() as connection:  # what it holds and sets ends with it
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()


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
