"""Job control: what an operator or an owner does to a set of jobs; one job is a set of one.

A command locks its jobs in the order of their ids, and answers with one result a job, in the order in which they were
named; a job that was named twice gets the same result twice. A refused job is unchanged, and stops none of the others.
With ``tenant`` the jobs of other tenants are not found. ``cause`` is kept with the event: the reason that was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import errors as pg

from worker.errors import Conflict, Refused
from worker.jobs.command_results import NOTHING_SAID, Cause, CommandResult, in_order, jsonb_of
from worker.jobs.leases import adopted_by_size, array_of
from worker.jobs.rows import RetriedJob
from worker.jobs.statements import sql
from worker.jobs.states import JobState
from worker.jobs.transitions import wake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.rows import Params

FRESH_AFTER = frozenset({"source_changed", "source_refused", "digest_mismatch", "session_lost"})
"""Errors after which a retry cannot go on with the old session and fingerprint; `source_changed` unless the identity
alone differed. After the others init compares file and fingerprint again, and starts afresh if they differ."""
RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED})
_NOT_RETRYABLE = frozenset({JobState.SUCCEEDED, JobState.CANCELLING})
_NOT_CANCELLABLE = frozenset({JobState.SUCCEEDED, JobState.FAILED})


def cancel(
    tx: Connection,
    jobs: Sequence[UUID],
    actor: str,
    *,
    tenant: str | None = None,
    cause: Cause = NOTHING_SAID,
    abandon: bool = False,
) -> list[CommandResult]:
    """Cancel jobs, durably: from the commit on none of their slices is claimed. Repeating it changes nothing.

    ``abandon``: the store is not asked. The leader ends the jobs as soon as no request of theirs can be under way, also
    those that were cancelled before; their sessions are left open.

    Refusals: `not_cancellable`, `not_found`.
    """
    results = _run(tx, "cancel", jobs, cause, actor=actor, tenant=tenant, abandon=abandon)
    return in_order(jobs, (_not_cancellable(each) if each.state in _NOT_CANCELLABLE else each for each in results))


def _not_cancellable(result: CommandResult) -> CommandResult:
    message = f"job {result.job_id} has already {result.state}"
    refusal = Conflict(message, code="not_cancellable", advice="Nothing is left to cancel.")
    return CommandResult(result.job_id, None, refusal)


def pause(
    tx: Connection,
    jobs: Sequence[UUID],
    actor: str,
    reason: str | None,
    *,
    tenant: str | None = None,
    cause: Cause = NOTHING_SAID,
) -> list[CommandResult]:
    """Start no new work for jobs until they are resumed; what is in flight ends. Repeating it changes nothing.

    A job that has ended or is being cancelled is not paused, and its state is the result. Refusal: `not_found`.
    """
    cause = cause if reason is None else {"reason": reason, **cause}
    return in_order(jobs, _run(tx, "pause", jobs, cause, actor=actor, tenant=tenant, wakes=False, reason=reason))


def resume(
    tx: Connection, jobs: Sequence[UUID], actor: str, *, tenant: str | None = None, cause: Cause = NOTHING_SAID
) -> list[CommandResult]:
    """Start new work for paused jobs again. On any other job nothing happens, and its state is the result.

    Refusal: `not_found`.
    """
    return in_order(jobs, _run(tx, "resume", jobs, cause, actor=actor, tenant=tenant))


def prioritise(
    tx: Connection,
    jobs: Sequence[UUID],
    actor: str,
    priority: int,
    *,
    tenant: str | None = None,
    cause: Cause = NOTHING_SAID,
) -> list[CommandResult]:
    """Give jobs another priority, for what is dispatched from now on. On one that has succeeded nothing happens.

    Refusal: `not_found`.
    """
    return in_order(jobs, _run(tx, "prioritise", jobs, cause, actor=actor, tenant=tenant, priority=priority))


def start_now(
    tx: Connection, jobs: Sequence[UUID], actor: str, *, tenant: str | None = None, cause: Cause = NOTHING_SAID
) -> list[CommandResult]:
    """End the wait of live jobs for a time. What else holds them back still does, see `held_back`.

    Refusal: `not_found`.
    """
    return in_order(jobs, _run(tx, "start_now", jobs, cause, actor=actor, tenant=tenant))


def _run(
    tx: Connection, statement: str, jobs: Sequence[UUID], cause: Cause, *, wakes: bool = True, **params: Any
) -> list[CommandResult]:
    """Run a command's statement, and wake the dispatcher if it has changed a job."""
    named = {"jobs": array_of(jobs), "cause": jsonb_of(cause)}
    results = [CommandResult.from_row(row) for row in tx.execute(sql(statement), named | params)]
    if wakes and any(result.changed for result in results):
        wake(tx)
    return results


def retry(
    tx: Connection,
    jobs: Sequence[UUID],
    actor: str,
    *,
    force: bool = False,
    scratch: bool = False,
    tenant: str | None = None,
    cause: Cause = NOTHING_SAID,
    check: Callable[[RetriedJob], Refused | None] = lambda _: None,
) -> list[CommandResult]:
    """Put failed and cancelled jobs back to work, and resume paused ones; on other live jobs nothing happens.

    Session and checkpoints are kept where the store may still have them. Of several jobs for one target the newest is
    put back. Call it in a transaction: the locks must last from the decision to the write. ``scratch``:
    nothing is kept, and the session is left open at the store; a paused job is refused then, since it would go on
    where it was.

    Refusals: `not_retryable`, `superseded` (unless ``force``), `key_busy`, `not_found`, and what ``check`` returns.
    """
    rows = tx.execute(sql("to_retry"), {"jobs": array_of(jobs), "tenant": tenant})
    asked = [RetriedJob.from_row(row) for row in rows]
    refusals = {job.id: refused for job in asked if (refused := _refusal(job, tenant, force, scratch) or check(job))}
    results = {job.id: CommandResult(job.id, job.state) for job in asked}
    results |= {job: CommandResult(job, None, refused) for job, refused in refusals.items()}
    allowed = [job for job in asked if job.id not in refusals]
    if paused := [job.id for job in allowed if job.paused and job.state not in RETRYABLE]:
        results |= {
            each.job_id: each for each in _run(tx, "resume", paused, cause, actor=actor, tenant=tenant, wakes=False)
        }
    if ended := [job for job in allowed if job.state in RETRYABLE]:
        said = {"from": "scratch", **cause} if scratch else cause
        written = {"actor": actor, "force": force, "scratch": scratch, "cause": jsonb_of(said)}
        results |= _put_back(tx, ended, written)
    if any(result.changed for result in results.values()):
        wake(tx)
    return in_order(jobs, results.values())


def _refusal(job: RetriedJob, tenant: str | None, force: bool, scratch: bool) -> Refused | None:
    if job.state in _NOT_RETRYABLE:
        return Conflict(
            f"job {job.id} is {job.state}",
            code="not_retryable",
            advice="Only failed and cancelled jobs can be retried.",
        )
    if job.state not in RETRYABLE:
        if scratch and job.paused:
            advice = "Cancel it, then retry it from scratch."
            return Conflict(f"job {job.id} is paused, and not ended", code="not_retryable", advice=advice)
        return None
    if job.superseded_by is not None and not force:
        shown = tenant is None or tenant == job.superseded_by_tenant
        return Conflict(
            f"job {job.superseded_by} has put a newer object at {job.key!r} since"
            if shown
            else "a job of another tenant has put a newer object there since",
            code="superseded",
            advice="Retry with force to replace it nevertheless.",
            extra={"job_id": str(job.superseded_by)} if shown else None,
        )
    return _key_busy(job) if job.key_busy else None


def _key_busy(job: RetriedJob) -> Refused:
    message = f"another live job holds {job.key!r}"
    return Conflict(message, code="key_busy", advice="Wait until it has ended, or cancel it.")


def _put_back(tx: Connection, jobs: Sequence[RetriedJob], written: Params) -> dict[UUID, CommandResult]:
    """Put the newest job of each target back to work; ``jobs`` come in the order of their targets, then ids."""
    newest = {job.target: job for job in jobs}
    retried = _write(tx, list(newest.values()), written)

    def result(job: RetriedJob) -> CommandResult:
        first = newest[job.target]
        if first.id not in retried:
            return CommandResult(job.id, None, _key_busy(job))
        if job is first:
            return CommandResult(job.id, JobState.QUEUED, changed=True)
        refusal = Conflict(
            f"job {first.id} for {job.key!r} is newer, and was put back to work",
            code="superseded",
            advice="Retry this job alone, with force, once the newer one has ended.",
            extra={"job_id": str(first.id)},
        )
        return CommandResult(job.id, None, refusal)

    return {job.id: result(job) for job in jobs}


def _write(tx: Connection, jobs: Sequence[RetriedJob], written: Params) -> set[UUID]:
    """Put jobs back to work, each for another target; return those whose target no other live job has taken since.

    Where one has, or the server breaks a deadlock, the statement is undone, and run again for each job by itself, in
    the order of their targets.
    """
    afresh = {job.id for job in jobs if written["scratch"] or _begins_afresh(job)}
    if kept := {job.id: job.epoch for job in jobs if job.id not in afresh}:
        afresh |= adopted_by_size(tx, kept)

    def write(part: Sequence[RetriedJob]) -> set[UUID]:
        params = {"jobs": array_of(job.id for job in part), "fresh": array_of(job.id in afresh for job in part)}
        try:
            with tx.transaction():
                return {row["id"] for row in tx.execute(sql("retry"), {**written, **params})}
        except pg.UniqueViolation:
            if len(part) == 1:
                return set()
        except pg.DeadlockDetected:
            if len(part) == 1:
                raise
        return set().union(*(write([job]) for job in part))

    return write(jobs)


def _begins_afresh(job: RetriedJob) -> bool:
    """Say whether the row shows that the old session and fingerprint are of no use."""
    if job.state is JobState.CANCELLED or not job.has_session:
        return True
    return job.error is not None and job.error["code"] in FRESH_AFTER and not job.error.get("replaced")
