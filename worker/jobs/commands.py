"""What an operator or an owner does to jobs that there are.

A command names a set of jobs, and answers for each, in the order in which they were named; a refused job stops none of
the others. A job that the key does not see is not found. A command runs in a transaction, which writes it down in the
audit, what was refused included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.jobs import audit, control
from worker.jobs.audit import Actor
from worker.jobs.places import retry_refusal
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker.config.profiles import Profiles
    from worker.db.pool import Connection
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.command_results import Cause, CommandResult


@dataclass(frozen=True, slots=True)
class Acting:
    """Who gives a command, and what is said of it.

    Attributes:
        key: of the request.
        person: whom the key's owner names; None if none is named. It is trusted as far as the key is.
        reason: why; None if none was given.
    """

    key: ApiKey
    person: str | None = None
    reason: str | None = None

    @property
    def by(self) -> Actor:
        """The same for the audit."""
        return Actor(self.key.actor, self.key, self.person, self.reason)

    @property
    def cause(self) -> Cause:
        """What the history of a job keeps of it."""
        said = {"reason": self.reason, "person": self.person}
        return {name: text for name, text in said.items() if text is not None}


def cancel(tx: Connection, jobs: Sequence[UUID], acting: Acting, *, abandon: bool = False) -> list[CommandResult]:
    """Cancel jobs, or abandon them; see `control.cancel`."""
    key = acting.key
    results = control.cancel(tx, jobs, key.actor, tenant=key.only_tenant, cause=acting.cause, abandon=abandon)
    audit.record_jobs(tx, acting.by, "abandon" if abandon else "cancel", results)
    return results


def pause(tx: Connection, jobs: Sequence[UUID], acting: Acting) -> list[CommandResult]:
    """Start no new work for jobs; see `control.pause`."""
    key = acting.key
    results = control.pause(tx, jobs, key.actor, acting.reason, tenant=key.only_tenant, cause=acting.cause)
    audit.record_jobs(tx, acting.by, "pause", results)
    return results


def resume(tx: Connection, jobs: Sequence[UUID], acting: Acting) -> list[CommandResult]:
    """Start new work for paused jobs again; see `control.resume`."""
    results = control.resume(tx, jobs, acting.key.actor, tenant=acting.key.only_tenant, cause=acting.cause)
    audit.record_jobs(tx, acting.by, "resume", results)
    return results


def prioritise(tx: Connection, jobs: Sequence[UUID], acting: Acting, priority: int) -> list[CommandResult]:
    """Give jobs another priority; see `control.prioritise`."""
    key = acting.key
    results = control.prioritise(tx, jobs, key.actor, priority, tenant=key.only_tenant, cause=acting.cause)
    audit.record_jobs(tx, acting.by, "priority", results, priority=priority)
    return results


def start_now(tx: Connection, jobs: Sequence[UUID], acting: Acting) -> list[CommandResult]:
    """End the wait of jobs for a time; see `control.start_now`."""
    results = control.start_now(tx, jobs, acting.key.actor, tenant=acting.key.only_tenant, cause=acting.cause)
    audit.record_jobs(tx, acting.by, "start", results)
    return results


def retry(
    tx: Connection, jobs: Sequence[UUID], acting: Acting, profiles: Profiles, *, force: bool, scratch: bool = False
) -> list[CommandResult]:
    """Put failed, cancelled and paused jobs back to work; see `control.retry`.

    A refusal may also be ``tenant_not_allowed``: the profiles do not serve the job's tenant any more.
    """
    results = control.retry(
        tx,
        jobs,
        acting.key.actor,
        force=force,
        scratch=scratch,
        tenant=acting.key.only_tenant,
        cause=acting.cause,
        check=lambda job: retry_refusal(profiles, job),
    )
    audit.record_jobs(tx, acting.by, "retry", results, force=force, scratch=scratch)
    return results


def report(command: str, actor: str, results: Sequence[CommandResult]) -> None:
    """Emit what became of a command, after its commit."""
    for result in results:
        outcome = result.state if result.refusal is None else result.refusal.code
        emit("command.done", command=command, job_id=result.job_id, actor=actor, outcome=outcome)
