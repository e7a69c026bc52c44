"""Quarantine: a job fails when too many workers have died on the same slice or step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker.jobs import transitions

if TYPE_CHECKING:
    from worker.db.pool import Connection
    from worker.jobs.retry import ErrorDocument
    from worker.jobs.rows import FreedClaim

QUARANTINE_DEATHS = 4
"""Two deaths beside other work, then two more alone: the slice or step itself kills every worker that takes it."""


def quarantine(tx: Connection, freed: FreedClaim) -> None:
    """Fail the job of a claim that has killed `QUARANTINE_DEATHS` workers; a claim with fewer deaths is left alone."""
    if freed.deaths < QUARANTINE_DEATHS:
        return
    what = "the job's own step" if freed.number is None else f"slice {freed.number}"
    error: ErrorDocument = {
        "code": "quarantined",
        "message": f"{freed.deaths} worker processes died at {what}, the last two with nothing else on",
        "advice": "Look for the cause in the workers' logs (memory, the file), then retry.",
        "at": datetime.now(UTC).isoformat(),
    }
    transitions.quarantine(tx, freed.job_id, freed.epoch, error)
