"""Job control: cancel, retry, pause and resume, each of a set of jobs; one job is a set of one.

A command locks its jobs in the order of their ids, and answers with one result a job, in the order in which they were
named; a job that was named twice gets the same result twice. A refused job is unchanged, and stops none of the others.
With ``tenant`` the jobs of other tenants are not found.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from psycopg import errors as pg

from worker.errors import Conflict, NotFound, Refused
from worker.jobs.leases import adopted_by_size, array_of
from worker.jobs.rows import RetriedJob
from worker.jobs.statements import sql
from worker.jobs.states import JobState
from worker.jobs.transitions import wake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from uuid import UUID

    from worker.db.pool import Connection

FRESH_AFTER = frozenset({"source_changed", "source_refused", "digest_mismatch", "session_lost"})
"""Errors after which a retry cannot go on with the old session and fingerprint; `source_changed` unless the identity
alone differed. After the others init compares file and fingerprint again, and starts afresh if they differ."""
RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED})
_NOT_RETRYABLE = frozenset({JobState.SUCCEEDED, JobState.CANCELLING})
_NOT_CANCELLABLE = frozenset({JobState.SUCCEEDED, JobState.FAILED})


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command has done to one of its jobs: its state afterwards, or a refusal, which changed nothing."""

    job_id: UUID
    state: JobState | None
    refusal: Refused | None = None
    changed: bool = False
    """Whether the job was changed; a command that is repeated changes nothing."""

    def state_or_raise(self) -> JobState:
        """Return the state.

        Raises:
            Refused: the refusal.
        """
        if self.state is None:
            assert self.refusal is not None
            raise self.refusal
        return self.state

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the columns of `cancel.sql`, `pause.sql` and `resume.sql`."""
        return cls(row["id"], JobState(row["state"]), changed=row["changed"])


def cancel(tx: Connection, jobs: Sequence[UUID], actor: str, *, tenant: str | None = None) -> list[CommandResult]:
    """Cancel jobs, durably: from the commit on none of their slices is claimed. Repeating it changes nothing.

    Refusals: `not_cancellable`, `not_found`.
    """
    rows = tx.execute(sql("cancel"), {"jobs": array_of(jobs), "tenant": tenant, "actor": actor})
    results = [CommandResult.from_row(row) for row in rows]
    if any(result.changed for result in results):
        wake(tx)
    return _in_order(jobs, (_not_cancellable(each) if each.state in _NOT_CANCELLABLE else each for each in results))


def _not_cancellable(result: CommandResult) -> CommandResult:
    message = f"job {result.job_id} has already {result.state}"
    refusal = Conflict(message, code="not_cancellable", advice="Nothing is left to cancel.")
    return CommandResult(result.job_id, None, refusal)


def pause(
    tx: Connection, jobs: Sequence[UUID], actor: str, reason: str, *, tenant: str | None = None
) -> list[CommandResult]:
    """Start no new work for jobs until they are resumed; what is in flight ends. Repeating it changes nothing.

    A job that has ended or is being cancelled is not paused, and its state is the result. Refusal: `not_found`.
    """
    params = {"jobs": array_of(jobs), "tenant": tenant, "actor": actor, "reason": reason}
    return _in_order(jobs, [CommandResult.from_row(row) for row in tx.execute(sql("pause"), params)])


def resume(tx: Connection, jobs: Sequence[UUID], actor: str, *, tenant: str | None = None) -> list[CommandResult]:
    """Start new work for paused jobs again. On any other job nothing happens, and its state is the result.

    Refusal: `not_found`.
    """
    results = _resume(tx, jobs, actor, tenant)
    if any(result.changed for result in results):
        wake(tx)
    return _in_order(jobs, results)


def _resume(tx: Connection, jobs: Sequence[UUID], actor: str, tenant: str | None) -> list[CommandResult]:
    rows = tx.execute(sql("resume"), {"jobs": array_of(jobs), "tenant": tenant, "actor": actor})
    return [CommandResult.from_row(row) for row in rows]


def retry(
    tx: Connection,
    jobs: Sequence[UUID],
    actor: str,
    *,
    force: bool = False,
    tenant: str | None = None,
    check: Callable[[RetriedJob], Refused | None] = lambda _: None,
    savepoint: bool = True,
) -> list[CommandResult]:
    """Put failed and cancelled jobs back to work, and resume paused ones; on other live jobs nothing happens.

    Session and checkpoints are kept where the store may still have them. Of several jobs for one target the newest is
    put back. Call it in a transaction: the locks must last from the decision to the write. ``savepoint`` False: of one
    job, in a transaction of its own, which saves two round trips.

    Refusals: `not_retryable`, `superseded` (unless ``force``), `key_busy`, `not_found`, and what ``check`` returns.

    Raises:
        Conflict: `key_busy`, without a savepoint: the target was taken since the check. It rolls the transaction back.
    """
    assert savepoint or len(jobs) == 1
    rows = tx.execute(sql("to_retry"), {"jobs": array_of(jobs), "tenant": tenant})
    asked = [RetriedJob.from_row(row) for row in rows]
    refusals = {job.id: refused for job in asked if (refused := _refusal(job, tenant, force=force) or check(job))}
    results = {job.id: CommandResult(job.id, job.state) for job in asked}
    results |= {job: CommandResult(job, None, refused) for job, refused in refusals.items()}
    allowed = [job for job in asked if job.id not in refusals]
    if paused := [job.id for job in allowed if job.paused and job.state not in RETRYABLE]:
        results |= {each.job_id: each for each in _resume(tx, paused, actor, tenant)}
    if ended := [job for job in allowed if job.state in RETRYABLE]:
        results |= _put_back(tx, ended, actor, force=force, savepoint=savepoint)
    if any(result.changed for result in results.values()):
        wake(tx)
    return _in_order(jobs, results.values())


def _refusal(job: RetriedJob, tenant: str | None, *, force: bool) -> Refused | None:
    if job.state in _NOT_RETRYABLE:
        return Conflict(
            f"job {job.id} is {job.state}",
            code="not_retryable",
            advice="Only failed and cancelled jobs can be retried.",
        )
    if job.state not in RETRYABLE:
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


def _put_back(
    tx: Connection, jobs: Sequence[RetriedJob], actor: str, *, force: bool, savepoint: bool
) -> dict[UUID, CommandResult]:
    """Put the newest job of each target back to work; ``jobs`` come in the order of their targets, then ids."""
    newest = {job.target: job for job in jobs}
    retried = _write(tx, list(newest.values()), actor, force=force, savepoint=savepoint)

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


def _write(tx: Connection, jobs: Sequence[RetriedJob], actor: str, *, force: bool, savepoint: bool) -> set[UUID]:
    """Put jobs back to work, each for another target; return those whose target no other live job has taken since.

    Where one has, or the server breaks a deadlock, the statement is undone, and run again for each job by itself, in
    the order of their targets.
    """
    afresh = {job.id for job in jobs if _begins_afresh(job)}
    if kept := {job.id: job.epoch for job in jobs if job.id not in afresh}:
        afresh |= adopted_by_size(tx, kept)

    def write(part: Sequence[RetriedJob]) -> set[UUID]:
        params = {"jobs": array_of(job.id for job in part), "fresh": array_of(job.id in afresh for job in part)}
        try:
            with tx.transaction() if savepoint else nullcontext():
                return {row["id"] for row in tx.execute(sql("retry"), {**params, "actor": actor, "force": force})}
        except pg.UniqueViolation:
            if not savepoint:
                raise _key_busy(part[0]) from None
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


def _in_order(jobs: Sequence[UUID], results: Iterable[CommandResult]) -> list[CommandResult]:
    found = {result.job_id: result for result in results}
    return [found.get(job) or CommandResult(job, None, NotFound(f"there is no job {job}")) for job in jobs]
