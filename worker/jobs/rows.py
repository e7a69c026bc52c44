"""The rows that statements return, as frozen values.

A column is read from its row in one place: the value's `from_row`. Everything else names a field. A field has the
column's name and unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from worker.jobs.states import JobState

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from worker.jobs.documents import (
        DigestsDocument,
        FingerprintDocument,
        HashingDocument,
        SessionHandle,
        SourceDocument,
    )
    from worker.jobs.retry import ErrorDocument

Params = Mapping[str, Any]
"""A statement's parameters, by name."""


@dataclass(frozen=True, slots=True)
class SourceRef:
    """`job.source`: where the bytes come from."""

    kind: str
    root: str
    document: SourceDocument
    """All of it; only its own kind reads it."""

    @classmethod
    def from_json(cls, document: SourceDocument) -> Self:
        """Read the column; a kind of another release may have no root, and no worker has a root of that name."""
        return cls(document.get("kind", "file"), document.get("root", ""), document)


@dataclass(frozen=True, slots=True)
class FailureCounts:
    """What the decision about a claim's failure depends on, of the job's row and the claim's own."""

    attempts: int
    """Answers so far that count against this slice or step."""
    session_losses: int
    retry_for_s: int
    failing_for_s: float | None
    """Since the first failure after the last progress, by the database's clock; None if the job is not failing."""
    last_code: str | None
    """The code of the job's present error."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the columns of a claimed row, or those of `claim_history.sql`."""
        last_code = (row["error"] or {}).get("code")
        return cls(row["attempts"], row["session_losses"], row["retry_for_s"], row["failing_for_s"], last_code)


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """The row of a job whose step was claimed, see `claim_step.sql`."""

    id: UUID
    epoch: int
    state: JobState
    tenant: str
    source: SourceRef
    store: str
    key: str
    target: str
    """The store's place and the key: a profile that leads elsewhere by now serves the job no longer."""
    overwrite: bool
    attributes: str | None
    """The job's own attributes for the object."""
    verify: str
    """`auto` or `file`."""
    slice_size: int | None
    """Requested, in bytes."""
    size_bytes: int | None
    slice_bytes: int | None
    session: SessionHandle | None
    fingerprint: FingerprintDocument | None
    hashing: HashingDocument | None
    digests: DigestsDocument | None
    existed: bool | None
    """Whether an object was at the key before this epoch's upload; None: not known."""
    finish_claims: int
    dispatched_at: datetime
    breaker_open: bool
    """Whether the store's breaker was open at the claim."""
    failures: FailureCounts

    def upload(self) -> tuple[int, int, SessionHandle]:
        """Return the file's size, the slices' size and the session, which a job has from `open_session.sql` on."""
        assert self.size_bytes is not None
        assert self.slice_bytes is not None
        assert self.session is not None
        return self.size_bytes, self.slice_bytes, self.session

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the statement's columns."""
        return cls(
            *(row["id"], row["epoch"], JobState(row["state"]), row["tenant"], SourceRef.from_json(row["source"])),
            *(row["store"], row["key"], row["target"], row["overwrite"], row["attributes"], row["verify"]),
            *(row["slice_size"], row["size_bytes"], row["slice_bytes"], row["session"], row["fingerprint"]),
            *(row["hashing"], row["digests"], row["existed"], row["finish_claims"], row["dispatched_at"]),
            *(row["breaker_open"], FailureCounts.from_row(row)),
        )


@dataclass(frozen=True, slots=True)
class ClaimedSlice:
    """The row of a slice that was claimed, with what its request needs of the job, see `claim_slice.sql`."""

    tenant: str
    source: SourceRef
    store: str
    key: str
    target: str
    session: SessionHandle
    fingerprint: FingerprintDocument
    offset_bytes: int
    size_bytes: int
    """Of the slice."""
    unanswered: bool
    """Whether the last request with this slice got no whole answer: the store may have it."""
    dispatched_at: datetime
    breaker_open: bool
    failures: FailureCounts

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the statement's columns."""
        unanswered = bool((row["slice_error"] or {}).get("unanswered"))
        return cls(
            *(row["tenant"], SourceRef.from_json(row["source"]), row["store"], row["key"], row["target"]),
            *(row["session"], row["fingerprint"], row["offset_bytes"], row["slice_size_bytes"], unanswered),
            *(row["dispatched_at"], row["breaker_open"], FailureCounts.from_row(row)),
        )


Claimed = ClaimedJob | ClaimedSlice


@dataclass(frozen=True, slots=True)
class InitProgress:
    """What init has learned of a job's file and target, kept with `save_progress.sql`."""

    fingerprint: FingerprintDocument
    size_bytes: int
    hashing: HashingDocument | None = None
    digests: DigestsDocument | None = None
    existed: bool | None = None


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A session that the store has begun, and the plan of its slices, as `open_session.sql` stores them."""

    handle: SessionHandle
    fingerprint: FingerprintDocument
    size_bytes: int
    slice_bytes: int
    ordered: bool
    """Slices go one at a time, in order."""
    total: int
    """Slices of the plan."""
    held: list[int]
    """Numbers of the slices that the store has already."""
    bytes_done: int


class Checkpointed(NamedTuple):
    """A slice's job after `checkpoint.sql`; None where this commit did not change it."""

    state: str | None
    slices_left: int | None


class Reconciled(NamedTuple):
    """A job after `reconcile.sql`."""

    state: JobState
    slices_left: int
    missing: int
    """Slices that were recorded as done and that the store's list did not have."""


class DueItem(NamedTuple):
    """A step (`number` None) or slice that could be dispatched now."""

    job_id: UUID
    number: int | None
    store: str
    tenant: str
    priority: int
    state: str
    """The text of a `JobState`."""
    deaths: int
    carries: bool
    """Whether it sends bytes of the file."""
    carried_bytes: int | None
    """How many; None where the size is not known yet."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the columns of `due_steps.sql`, `due_slices.sql` and `due_aborts.sql`."""
        return cls._make(_DUE_COLUMNS(row))


_DUE_COLUMNS = itemgetter(*DueItem._fields)  # a tick reads hundreds of rows: so they cost the least


class Dispatched(NamedTuple):
    """A step (`number` None) or slice that is marked as dispatched: what its message is made of."""

    job_id: UUID
    number: int | None
    token: int
    epoch: int
    run: int
    """Grows with each retry by an operator."""
    state: str
    """The text of a `JobState`."""
    store: str
    key: str
    deaths: int
    """Worker processes that died while they held it."""
    offset_bytes: int | None
    slice_size_bytes: int | None
    slices_total: int | None
    traceparent: str | None = None
    """Of the request that enqueued the job."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the columns of `dispatch.sql` and `redispatch.sql`."""
        return cls._make(_DISPATCHED_COLUMNS(row))


_DISPATCHED_COLUMNS = itemgetter(*Dispatched._fields)


class FreedClaim(NamedTuple):
    """A step (`number` None) or slice that `rescue.sql` took back."""

    job_id: UUID
    number: int | None
    epoch: int
    deaths: int


class EndedWorker(NamedTuple):
    """A worker process that was silent for too long."""

    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class RetriedJob:
    """What the decision about an operator's retry depends on, see `to_retry.sql`."""

    id: UUID
    tenant: str
    state: JobState
    epoch: int
    paused: bool
    has_session: bool
    error: ErrorDocument | None
    source: SourceRef
    store: str
    key: str
    target: str
    superseded_by: UUID | None
    """A later job that has put its object at the same target."""
    superseded_by_tenant: str | None
    key_busy: bool
    """Whether a live job holds the target."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read the statement's columns."""
        return cls(
            *(row["id"], row["tenant"], JobState(row["state"]), row["epoch"], row["paused_at"] is not None),
            *(row["has_session"], row["error"], SourceRef.from_json(row["source"]), row["store"], row["key"]),
            *(row["target"], row["superseded_by"], row["superseded_by_tenant"], row["key_busy"]),
        )
