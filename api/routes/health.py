"""Whether the process lives, and whether it can serve."""

from functools import cache
from typing import Literal

import psycopg
from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.problems import Unavailable, refusals
from api.state import AppStateDep
from worker.db.migrate import alembic_config
from worker.db.pool import Tx
from worker.db.repetition import run_idempotent
from worker.jobs.statements import sql

router = APIRouter(tags=["health"])
UNTAKEN_S = 30.0
"""A message that waits for so long while no worker is at work is waited for by none."""


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The database is reachable and has every table: jobs can be enqueued. The broker is not needed for that."""

    status: Literal["ready"] = "ready"
    note: str | None = Field(default=None, description="What keeps accepted jobs from going on, if it is seen here.")


@router.get("/healthz", responses=refusals(judges=False))
async def health() -> Alive:
    """Say that the process lives; looks at nothing else."""
    return Alive()


@router.get("/readyz", responses=refusals(503, judges=False))
def readiness(app_state: AppStateDep) -> Ready:
    """Say whether jobs can be enqueued, and if not, why."""
    if not run_idempotent(app_state.database, _migrated):
        raise Unavailable("the database lacks migrations", code="not_migrated", advice="Run `sliceway migrate`.")
    return Ready(note=run_idempotent(app_state.database, _note))


def _note(tx: Tx) -> str | None:
    """Say that workers live and take nothing, as after Celery's `cancel_consumer`, which those of 0.1 obey."""
    [seen] = tx.execute(sql("untaken"))
    if not seen["live"] or seen["at_work"] or (seen["untaken_s"] or 0.0) < UNTAKEN_S:
        return None
    return (
        f"of {seen['live']} live worker processes none has taken what was dispatched {seen['untaken_s']:.0f} s ago;"
        " `sliceway doctor` says more"
    )


def _migrated(tx: Tx) -> bool:
    """Say whether the database is at our revision, or at a newer one, as while a new release is rolled out."""
    try:
        found = {row["version_num"] for row in tx.execute("SELECT version_num FROM alembic_version")}
    except psycopg.errors.UndefinedTable:
        return False
    head, older = _revisions()
    return head in found or bool(found - older)


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """Return our newest revision, and all that came before it."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - only who asks for readiness pays for it

    scripts = ScriptDirectory.from_config(alembic_config(""))
    head = scripts.get_current_head()
    return head, frozenset(script.revision for script in scripts.walk_revisions()) - {head}
