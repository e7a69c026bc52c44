"""The tables. Alembic's migrations create them; `alembic check` holds the two together."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from worker.jobs.documents import JsonObject
from worker.jobs.states import DUE_STEP, LIVE, SLICES_MAY_START, STEPS, JobState, SliceState, Step

if TYPE_CHECKING:
    from collections.abc import Iterable


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _steps_of_states() -> str:
    """Return the CHECK of `STEPS`: it compares the state once, since each write of a row evaluates it."""
    cases = (f"WHEN '{state}' THEN {_one_of('step', steps)}" for state, steps in STEPS.items())
    return f"CASE state {' '.join(cases)} END"


_LIVE = _one_of("state", LIVE)
UNFINISHED = "finished_at IS NULL"
"""A live job, as indexes say it. Not by its state: a condition on one state would imply it, and a plan made while few
jobs are live would read such an index whole, for ever after."""
ENDED = "finished_at IS NOT NULL"
WITH_ERROR = "state IN ('failed', 'cancelled')"  # of the ended jobs; release 0.1 left an error to cancelled ones


class Base(DeclarativeBase):
    """Names of constraints are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: TIMESTAMP(timezone=True),
        JsonObject: JSONB,
        list[str]: ARRAY(Text),
        bytes: LargeBinary,
    }


class Job(Base):
    """One file to one key in one store."""

    __tablename__ = "job"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str]
    state: Mapped[str]
    step: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    epoch: Mapped[int] = mapped_column(server_default=text("1"))
    run: Mapped[int] = mapped_column(server_default=text("1"))

    source: Mapped[JsonObject]
    fingerprint: Mapped[JsonObject | None]
    store: Mapped[str]
    key: Mapped[str]
    target: Mapped[str]
    overwrite: Mapped[bool]
    attributes: Mapped[str | None]
    labels: Mapped[JsonObject] = mapped_column(server_default=text("'{}'::jsonb"))
    verify: Mapped[str]
    slice_size: Mapped[int | None]
    retry_for_s: Mapped[int]

    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    slice_bytes: Mapped[int | None]
    slices_total: Mapped[int | None]
    slices_left: Mapped[int | None]
    bytes_done: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    sent_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Acknowledged bytes of what was given back since: of its slices together, or of its one request."""
    session: Mapped[JsonObject | None]
    ordered: Mapped[bool] = mapped_column(server_default=false())
    existed: Mapped[bool | None]
    hashing: Mapped[JsonObject | None]
    digests: Mapped[JsonObject | None]
    finish_claims: Mapped[int] = mapped_column(server_default=text("0"))

    paused_at: Mapped[datetime | None]
    pause_reason: Mapped[str | None]
    abandoned_at: Mapped[datetime | None]
    token: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    worker: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    deaths: Mapped[int] = mapped_column(server_default=text("0"))
    session_losses: Mapped[int] = mapped_column(server_default=text("0"))
    error: Mapped[JsonObject | None]
    failure_code: Mapped[str | None]
    """The code of `error` of an ended job, for indexes: on `error` itself one would make each write of it dearer."""
    result: Mapped[JsonObject | None]

    idempotency_key: Mapped[str | None]
    request_digest: Mapped[bytes | None]
    traceparent: Mapped[str | None]
    """Of the request that enqueued it; see `worker/telemetry/tracing.py`."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(_one_of("state", JobState), name="state"),
        CheckConstraint(_one_of("step", Step), name="step"),
        CheckConstraint(f"({UNFINISHED}) = ({_LIVE})", name="finished_at"),
        CheckConstraint(_steps_of_states(), name="step_of_state"),
        Index("uq_job_live_target", "target", unique=True, postgresql_where=text(UNFINISHED)),
        Index(
            "uq_job_idempotency",
            "tenant",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        # what the dispatcher reads: on live rows only, so that finished jobs cost it nothing
        Index("ix_job_due_step", "store", "tenant", "priority", "id", postgresql_where=text(DUE_STEP)),
        Index("ix_job_uploading", "store", "tenant", "priority", "id", postgresql_where=text(SLICES_MAY_START)),
        Index("ix_job_waiting", "not_before", postgresql_where=text("step = 'pending' AND not_before IS NOT NULL")),
        Index("ix_job_handed_out", "step", "worker", postgresql_where=text("step IN ('dispatched', 'running')")),
        Index("ix_job_cancelling", "id", postgresql_where=text("state = 'cancelling'")),
        Index("ix_job_live_tenant", "tenant", postgresql_where=text(UNFINISHED)),
        # what people list
        Index("ix_job_tenant_id", "tenant", "id"),
        Index("ix_job_tenant_state_id", "tenant", "state", "id"),
        Index("ix_job_target_id", "target", "id"),
        # what people count, and find among the ended: a row comes into these once, when its job ends
        Index("ix_job_ended", "tenant", "state", "store", "failure_code", postgresql_where=text(ENDED)),
        Index("ix_job_ended_key", "key", postgresql_ops={"key": "text_pattern_ops"}, postgresql_where=text(ENDED)),
        Index("ix_job_failed_id", "id", "failure_code", "state", "tenant", "store", postgresql_where=text(WITH_ERROR)),
        Index("ix_job_labels", "labels", postgresql_using="gin", postgresql_where=text("labels <> '{}'::jsonb")),
        # half-empty pages let a checkpoint's new row version stay on its page, without touching an index
        {"postgresql_with": {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02}},
    )


class Slice(Base):
    """One contiguous byte range of a live job's file: the unit of upload, retry and checkpoint."""

    __tablename__ = "slice"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    offset_bytes: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int]
    state: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    worker: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    claimed_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    deaths: Mapped[int] = mapped_column(server_default=text("0"))
    sends: Mapped[int] = mapped_column(server_default=text("0"))
    sent_bytes: Mapped[int | None]
    tag: Mapped[str | None]
    digest: Mapped[str | None]
    error: Mapped[JsonObject | None]
    done_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of("state", SliceState), name="state"),
        Index("ix_slice_due", "job_id", "number", postgresql_where=text("state = 'pending' AND not_before IS NULL")),
        Index("ix_slice_waiting", "not_before", postgresql_where=text("state = 'pending' AND not_before IS NOT NULL")),
        Index("ix_slice_in_flight", "state", "job_id", postgresql_where=text("state IN ('dispatched', 'sending')")),
        {
            "postgresql_with": {
                "fillfactor": 70,
                "autovacuum_vacuum_scale_factor": 0.02,
                "autovacuum_vacuum_insert_scale_factor": 0.2,
            }
        },
    )


class JobEvent(Base):
    """The history of a job: append-only, written in the transaction that moved the state."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    kind: Mapped[str]
    from_state: Mapped[str | None]
    to_state: Mapped[str | None]
    epoch: Mapped[int]
    actor: Mapped[str]
    cause: Mapped[JsonObject | None]

    __table_args__ = (Index("ix_event_job_id_id", "job_id", "id"),)


class Worker(Base):
    """One worker process and boot: its identity is random, so that no restart is taken for its predecessor."""

    __tablename__ = "worker"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    slots: Mapped[int]
    roots: Mapped[list[str]]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    claimed_through: Mapped[datetime | None]
    links: Mapped[list[Any] | None] = mapped_column(JSONB)
    links_at: Mapped[datetime | None]
    sending: Mapped[list[Any] | None] = mapped_column(JSONB)
    stores: Mapped[JsonObject | None]
    ended_at: Mapped[datetime | None]
    end: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("\"end\" IN ('stopped', 'dead')", name="end"),
        Index("ix_worker_live", "heartbeat_at", postgresql_where=text("ended_at IS NULL")),
        Index("ix_worker_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    )


class Leadership(Base):
    """Who leads the dispatch; an optimisation: two leaders at once do no harm."""

    __tablename__ = "leadership"

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[UUID]
    term: Mapped[int] = mapped_column(BigInteger)
    until: Mapped[datetime]


class Breaker(Base):
    """A store found unusable: its jobs wait, one probe a minute goes out, the first success removes the row."""

    __tablename__ = "breaker"

    store: Mapped[str] = mapped_column(primary_key=True)
    error: Mapped[JsonObject]
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    probe_at: Mapped[datetime]


class Hold(Base):
    """A store, a tenant or the queue of which nothing new is dispatched, until an operator releases it."""

    __tablename__ = "hold"

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str | None]
    actor: Mapped[str]
    key_name: Mapped[str | None]
    person: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("kind IN ('queue', 'store', 'tenant')", name="kind"),)


class OperatorCap(Base):
    """How many steps and slices of a store or a tenant an operator allows in flight at once."""

    __tablename__ = "cap"

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    max_in_flight: Mapped[int]
    reason: Mapped[str | None]
    actor: Mapped[str]
    key_name: Mapped[str | None]
    person: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("kind IN ('store', 'tenant')", name="kind"),
        CheckConstraint("max_in_flight > 0", name="max_in_flight"),
    )


class StoreLink(Base):
    """How fast the link to a store is, by the slices that it answered; the leader keeps it up to date."""

    __tablename__ = "store_link"

    store: Mapped[str] = mapped_column(primary_key=True)
    goodput_bytes_per_s: Mapped[float] = mapped_column(Double)
    answer_bytes: Mapped[float] = mapped_column(Double)
    answer_s: Mapped[float] = mapped_column(Double)
    measured_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Base):
    """A key to the API: what is kept is the SHA-256 of 256 random bits."""

    __tablename__ = "api_key"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    tenant: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Audit(Base):
    """Who did what: append-only, written in the transaction that did it."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    key_id: Mapped[UUID | None]
    key_name: Mapped[str | None]
    tenant: Mapped[str | None]
    person: Mapped[str | None]
    action: Mapped[str]
    what: Mapped[JsonObject]
    reason: Mapped[str | None]
    changed: Mapped[int]
    refused: Mapped[int]

    __table_args__ = (Index("ix_audit_tenant_id", "tenant", "id"),)
