"""What a command answers for each of its jobs, and what the job's history keeps of it beside the event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from psycopg.types.json import Jsonb

from worker.errors import NotFound, Refused
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

Cause = Mapping[str, str]
"""What an operator says of an action, as the job's history keeps it; empty: nothing."""
NOTHING_SAID: Cause = {}


def jsonb_of(cause: Cause) -> Jsonb | None:
    """Return the cause as a statement's parameter."""
    return Jsonb(dict(cause)) if cause else None


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
        """Read the columns of the statements of the commands."""
        return cls(row["id"], JobState(row["state"]), changed=row["changed"])


def in_order(jobs: Sequence[UUID], results: Iterable[CommandResult]) -> list[CommandResult]:
    """Return a result for each job that was named, in that order; one without a result is not found."""
    found = {result.job_id: result for result in results}
    return [found.get(job) or CommandResult(job, None, NotFound(f"there is no job {job}")) for job in jobs]
