"""Claims on steps and slices, and until when each worker holds them.

Leases and schedules use the database's clock only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from worker.errors import StaleClaim
from worker.jobs.rows import FailureCounts
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    from worker.db.pool import Connection
    from worker.jobs.retry import ErrorDocument
    from worker.jobs.rows import Params


def json_or_null(value: Any) -> Jsonb | None:
    """Return the value as a JSON parameter, None as NULL."""
    return None if value is None else Jsonb(value)


def array_of(values: Iterable[UUID | int | bool]) -> str:
    """Return an array parameter as one text: psycopg's own arrays cost the client as much as a statement."""
    return f"{{{','.join(map(str, values))}}}"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a job's step (`number` None) or on one slice, until it ends, lapses or is superseded."""

    job_id: UUID
    number: int | None
    token: int
    epoch: int
    worker: UUID

    @property
    def actor(self) -> str:
        """How the history names the holder."""
        return f"worker {self.worker}"

    def params(self) -> Params:
        """Return the guard's parameters."""
        return {
            "job": self.job_id,
            "number": self.number,
            "token": self.token,
            "epoch": self.epoch,
            "worker": self.worker,
            "actor": self.actor,
        }


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A slice that the store has: what a checkpoint writes down."""

    claim: Claim
    tag: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Deferral:
    """How a claim goes back, decided by `retry.py`.

    Attributes:
        delay: the wait before the next dispatch; None for none.
        error: what the job and the slice remember; None for an interruption of ours, which leaves no trace.
        attempt: whether it counts as an attempt.
        restart_clock: whether the time in failure begins anew.
    """

    delay: timedelta | None
    error: ErrorDocument | None
    attempt: bool = False
    restart_clock: bool = False

    def params(self) -> Params:
        """Return the statement's parameters."""
        return {
            "delay_s": None if self.delay is None else self.delay.total_seconds(),
            "error": json_or_null(self.error),
            "attempt": int(self.attempt),
            "restart_clock": self.restart_clock,
        }


def lost_claims(tx: Connection, claims: Sequence[tuple[Claim, bool]], worker: UUID) -> set[tuple[UUID, int | None]]:
    """Return which of the claims may not go on, as (job, number): cancelled, superseded or of an older epoch.

    With each claim goes whether it is one of an abort, which a cancel does not end.
    """
    asked = [
        {
            "job_id": str(claim.job_id),
            "number": claim.number,
            "token": claim.token,
            "epoch": claim.epoch,
            "abort": abort,
        }
        for claim, abort in claims
    ]  # as one text, like the slices of a checkpoint
    params = {"claims": json.dumps(asked), "worker": worker}
    return {(row["job_id"], row["number"]) for row in tx.execute(sql("lost_claims"), params)}


def claim_history(tx: Connection, claim: Claim) -> FailureCounts:
    """Return what the decision about a claim's failure needs; reads nothing else of the row.

    Raises:
        StaleClaim: it is not held.
    """
    row = tx.execute(sql("claim_history"), claim.params()).fetchone()
    if row is None:
        raise StaleClaim(f"job {claim.job_id}: the claim with token {claim.token} is not held")
    return FailureCounts.from_row(row)


def adopted_by_size(tx: Connection, epochs: Mapping[UUID, int]) -> set[UUID]:
    """Return the jobs whose session of this epoch holds slices that 0.1 took over without a proof of their content."""
    params = {"jobs": array_of(epochs), "epochs": array_of(epochs.values())}
    return {row["id"] for row in tx.execute(sql("adopted_by_size"), params)}
