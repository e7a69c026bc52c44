"""What becomes of a claim whose work ended in an error: the pure decision of `jobs.retry`, carried out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy.exc

from worker.errors import Interrupted, StaleClaim, Stop, StoreUnusable
from worker.jobs import leases, transitions
from worker.jobs.leases import Claim, Deferral
from worker.jobs.retry import Again, Decision, Fresh, GiveUp, History, decide
from worker.log import get_log, redact_json

if TYPE_CHECKING:
    from worker.tasks.runtime import Runtime

Row = dict[str, Any]
DATABASE_ERRORS = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)
log = get_log(__name__)


def settle(rt: Runtime, claim: Claim, row: Row, error: Exception) -> Decision | None:
    """Give the claim back as the failure wants it, and return the decision; None if the claim was no longer ours.

    Args:
        rt: the process.
        claim: what was worked on.
        row: what the claim returned.
        error: what happened.

    Raises:
        psycopg.Error: the database is away; the claim ends with its lease or with this worker.
    """
    decision = decide(error, _history(rt, row))
    try:
        with rt.db.connection() as tx:
            if isinstance(error, StoreUnusable) and error.code != "store_changed" and not isinstance(decision, GiveUp):
                _open_breaker(tx, row["store"], decision)
            _carry_out(tx, claim, decision)
            if isinstance(error, Interrupted) and error.stop is Stop.REVOKED:
                transitions.pause(
                    tx, claim.job_id, "operator", "its task was revoked in Flower; retry the job to go on"
                )
    except StaleClaim:
        return None
    rt.nudge()
    return decision


def _history(rt: Runtime, row: Row) -> History:
    since: datetime | None = row["failing_since"]
    return History(
        attempts=row["attempts"],
        failing_for=None if since is None else datetime.now(UTC) - since,
        last_code=(row["error"] or {}).get("code"),
        session_losses=row["session_losses"],
        retry_for=timedelta(seconds=row["retry_for_s"]),
        wait_for=timedelta(seconds=rt.settings.wait_for_s),
    )


def _carry_out(tx: Any, claim: Claim, decision: Decision) -> None:
    match decision:
        case Again(delay=delay, error=error, attempt=attempt, restart_clock=restart):
            deferral = Deferral(delay, redact_json(error), attempt=attempt, restart_clock=restart)
            transitions.release(tx, claim, deferral)
        case Fresh(error=error, delay=delay):
            transitions.new_epoch(tx, claim, redact_json(error), delay)
        case GiveUp(error=error):
            transitions.fail(tx, claim, redact_json(error))


def _open_breaker(tx: Any, store: str, decision: Decision) -> None:
    error = redact_json(decision.error)
    if leases.open_breaker(tx, store, error):
        log.warning("store.unusable", store=store, **{key: error[key] for key in ("code", "message", "advice")})


def store_answered(rt: Runtime, row: Row) -> None:
    """Let the jobs of a store that was unusable go on, after it has done what it was asked."""
    if row["breaker_open"]:
        with rt.db.connection() as tx:
            if leases.close_breaker(tx, row["store"]):
                log.info("store.usable_again", store=row["store"])
        rt.nudge()
