"""The migrations: where they are, which are pending, and how they are applied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worker.db.session_settings import engine

if TYPE_CHECKING:
    from alembic.config import Config

    from worker.db.url import DatabaseUrl


def migrations_folder() -> Path:
    """Return the folder of the migrations: beside the packages in a checkout, inside `worker` in an installed wheel."""
    worker = Path(__file__).parents[1]
    places = (worker / "migrations", worker.parent / "migrations")
    return next(folder for folder in places if (folder / "env.py").exists())


def alembic_config(url: str | DatabaseUrl) -> Config:
    """Return Alembic's configuration for a database."""
    from alembic.config import Config  # noqa: PLC0415 - a worker does not pay for it at start

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["url"] = url
    return config


def migrate(url: str | DatabaseUrl, revision: str = "head") -> None:
    """Bring the database to the revision; several at once wait for each other."""
    from alembic import command  # noqa: PLC0415

    command.upgrade(alembic_config(url), revision)


def pending_migrations(url: str | DatabaseUrl, *, pooled: bool = False) -> list[str]:
    """Return the revisions that the database lacks, oldest first; empty when it is up to date."""
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory.from_config(alembic_config(url))
    made = engine(url, pooled=pooled)
    try:
        with made.connect() as connection:
            current = MigrationContext.configure(connection).get_current_heads()
    finally:
        made.dispose()
    wanted = [script.revision for script in scripts.walk_revisions()]
    known = {script.revision for head in current for script in scripts.iterate_revisions(head, "base")}
    return [revision for revision in reversed(wanted) if revision not in known]
