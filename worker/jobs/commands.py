"""What an operator or an owner does to jobs that there are: cancel them, put them back to work.

A command names a set of jobs, and answers for each, in the order in which they were named; a refused job stops none of
the others. A job that the key does not see is not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.jobs import control
from worker.jobs.places import retry_refusal
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker.config.profiles import Profiles
    from worker.db.pool import Connection
    from worker.jobs.api_keys import ApiKey
    from worker.jobs.control import CommandResult


def cancel(tx: Connection, jobs: Sequence[UUID], key: ApiKey) -> list[CommandResult]:
    """Cancel jobs; see `control.cancel`."""
    return control.cancel(tx, jobs, key.actor, tenant=key.only_tenant)


def retry(
    tx: Connection, jobs: Sequence[UUID], key: ApiKey, profiles: Profiles, *, force: bool, savepoint: bool = True
) -> list[CommandResult]:
    """Put failed, cancelled and paused jobs back to work; see `control.retry`. In a transaction.

    A refusal may also be ``tenant_not_allowed``: the profiles do not serve the job's tenant any more.
    """
    return control.retry(
        tx,
        jobs,
        key.actor,
        force=force,
        tenant=key.only_tenant,
        check=lambda job: retry_refusal(profiles, job),
        savepoint=savepoint,
    )


def report(command: str, actor: str, results: Sequence[CommandResult]) -> None:
    """Emit what became of a command, after its commit."""
    for result in results:
        outcome = result.state if result.refusal is None else result.refusal.code
        emit("command.done", command=command, job_id=result.job_id, actor=actor, outcome=outcome)
