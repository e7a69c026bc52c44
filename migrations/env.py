"""Runs the migrations: one process at a time, and never waiting long for a lock that running work holds."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from worker.jobs.models import Base
from worker.settings import load_settings

LOCK = 7_536_914_302  # any number of our own: the advisory lock under which migrations run


def run() -> None:
    """Migrate the database that the caller named, or that the settings name."""
    url = context.config.attributes.get("url") or load_settings().database_url
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.commit()


if context.is_offline_mode():
    msg = "offline migrations are not served: run `sliceway migrate` against the database"
    raise SystemExit(msg)
run()
