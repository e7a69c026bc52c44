"""What becomes of a claim whose work ended in an error: the pure decision of `jobs.retry`, carried out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from worker.errors import Interrupted, Stop, StoreUnusable
from worker.jobs import audit, breakers, control, leases, transitions
from worker.jobs.leases import Claim, Deferral
from worker.jobs.retry import PROFILE_CODES, Again, Decision, Fresh, GiveUp, History, decide
from worker.telemetry.emit import emit
from worker.telemetry.redact import redact_json

if TYPE_CHECKING:
    from uuid import UUID

    from worker.config.timeouts import Timers
    from worker.db.pool import Connection
    from worker.jobs.command_results import CommandResult
    from worker.jobs.retry import ErrorDocument
    from worker.jobs.rows import Claimed, FailureCounts
    from worker.tasks.context import Runtime, TaskContext
    from worker.tasks.guard import ClaimGuard

ABORT_WAIT = timedelta(minutes=1)
"""The time between two attempts of an abort at a store that is unusable."""
REVOKED = "its task was revoked in Flower; retry the job to go on"


def settle(rt: Runtime, claim: Claim, job: Claimed | None, error: Exception, guard: ClaimGuard) -> Decision:
    """Give the claim back as the failure wants it, and return the decision.

    Args:
        rt: the process.
        claim: what was worked on, by its message.
        job: what the claim returned; None if that could not be read. What the decision needs is then read by itself.
        error: what happened.
        guard: of the claim.

    Raises:
        StaleClaim: the claim was no longer ours.
        psycopg.Error: the database is away; the claim ends with its lease or with this worker.
    """
    failures = job.failures if job else rt.write(lambda tx: leases.claim_history(tx, claim), guard)
    decision = decide(error, _history(failures, wait_for_s=rt.settings.wait_for_s))
    waits = job is not None and job.breaker_open and isinstance(error, StoreUnusable)
    if guard.aborts and waits and isinstance(decision, Again):
        # not every abort waits for the breaker, so this one must not come back at once
        decision = replace(decision, delay=decision.delay or ABORT_WAIT)

    def write(tx: Connection) -> None:
        with tx.transaction():
            if job and decision.error and isinstance(decision, Again) and _blames_store(rt, guard, job.store, error):
                _open_breaker(tx, job.store, _redacted(decision.error), rt.timers.probe_s)
            if isinstance(error, Interrupted) and error.stop is Stop.REVOKED:
                pause_revoked(tx, claim.job_id)
            _carry_out(tx, guard, decision, rt.timers)

    rt.write(write, guard)
    rt.notify_dispatcher()
    return decision


def pause_revoked(tx: Connection, job_id: UUID) -> list[CommandResult]:
    """Pause the job of a task that was revoked, in a transaction; several processes may see one revoke."""
    results = control.pause(tx, [job_id], "operator", REVOKED)
    if any(result.changed for result in results):
        audit.record_jobs(tx, replace(audit.REMOTE_CONTROL, reason=REVOKED), "pause", results)
    return results


def _blames_store(rt: Runtime, guard: ClaimGuard, store: str, error: Exception) -> bool:
    """Return whether the error shows that nothing can be sent to the store by its profile.

    An error of a profile that a reload has replaced meanwhile shows nothing of its successor.
    """
    in_use = rt.settings.profiles
    began_with = in_use if guard.profiles is None else guard.profiles
    is_in_use = began_with.stores.get(store) is in_use.stores.get(store)
    return is_in_use and isinstance(error, StoreUnusable) and error.code not in PROFILE_CODES


def _history(failures: FailureCounts, *, wait_for_s: float) -> History:
    failing_s = failures.failing_for_s  # by the database's clock: ours may be hours off
    return History(
        attempts=failures.attempts,
        failing_for=None if failing_s is None else timedelta(seconds=failing_s),
        last_code=failures.last_code,
        session_losses=failures.session_losses,
        retry_for=timedelta(seconds=failures.retry_for_s),
        wait_for=timedelta(seconds=wait_for_s),
    )


def _redacted(error: ErrorDocument) -> ErrorDocument:
    document: ErrorDocument = redact_json(error)
    return document


def _carry_out(tx: Connection, guard: ClaimGuard, decision: Decision, timers: Timers) -> None:
    claim, sent_bytes = guard.claim, guard.sent_bytes
    match decision:
        case Again(delay=delay, error=error, attempt=attempt, restart_clock=restart):
            kept = None if error is None else _redacted(error)
            deferral = Deferral(timers.wait(delay), kept, attempt=attempt, restart_clock=restart)
            transitions.release(tx, claim, deferral, sent_bytes=sent_bytes, size_bytes=guard.size_bytes)
        case Fresh(error=error, delay=delay):
            transitions.new_epoch(tx, claim, _redacted(error), timers.wait(delay))
        case GiveUp(error=error):
            transitions.fail(tx, claim, _redacted(error), abort_delay_s=timers.probe_s, sent_bytes=sent_bytes)


def _open_breaker(tx: Connection, store: str, error: ErrorDocument, probe_s: float) -> None:
    if breakers.open_breaker(tx, store, error, probe_s):
        fields = {"code": error["code"], "message": error["message"], "advice": error["advice"]}
        emit("store.unusable", store=store, **fields)


def store_answered(ctx: TaskContext[Claimed]) -> None:
    """Let the jobs of a store that was unusable go on, after it has done what it was asked."""
    if ctx.job.breaker_open:
        if ctx.write(lambda tx: breakers.close_breaker(tx, ctx.job.store)):
            emit("store.usable_again", store=ctx.job.store)
        ctx.rt.notify_dispatcher()
