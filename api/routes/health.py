"""Liveness and readiness of the process."""

from functools import cache

import psycopg
from fastapi import APIRouter

from api.problems import Unavailable, problem_responses
from api.state import AppStateDep
from api.views.health import Alive, Ready
from worker.db.migrate import alembic_config
from worker.db.pool import Connection
from worker.db.repetition import run_idempotent
from worker.jobs import why
from worker.jobs.statements import sql

router = APIRouter(tags=["health"])


@router.get("/healthz", responses=problem_responses(validates=False))
async def health() -> Alive:
    """Say that the process lives; looks at nothing else."""
    return Alive()


@router.get("/readyz", responses=problem_responses(503, validates=False))
def readiness(app_state: AppStateDep) -> Ready:
    """Say whether jobs can be enqueued, and if not, why."""
    if not run_idempotent(app_state.database, _migrated):
        raise Unavailable("the database lacks migrations", code="not_migrated", advice="Run `sliceway migrate`.")
    return Ready(note=run_idempotent(app_state.database, _note))


def _note(tx: Connection) -> str | None:
    """Return a note if live workers consume nothing, as after Celery's `cancel_consumer`, which workers of 0.1 obey."""
    [row] = tx.execute(sql("untaken"))
    untaken_s = why.untaken(row)
    if untaken_s is None:
        return None
    return (
        f"of {row['live']} live worker processes none has taken what was dispatched {untaken_s:.0f} s ago;"
        " `sliceway doctor` says more"
    )


def _migrated(tx: Connection) -> bool:
    """Return whether the database has our revision, or a newer one, as during the rollout of a new release."""
    try:
        found = {row["version_num"] for row in tx.execute("SELECT version_num FROM alembic_version")}
    except psycopg.errors.UndefinedTable:
        return False
    head, older = _revisions()
    return head in found or bool(found - older)


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """Return our newest revision, and all revisions before it."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - only a readiness check pays for it

    scripts = ScriptDirectory.from_config(alembic_config(""))
    head = scripts.get_current_head()
    return head, frozenset(script.revision for script in scripts.walk_revisions()) - {head}
