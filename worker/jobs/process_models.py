"""The tables of processes and of what is asked of them; with `models`, all tables."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from worker.jobs.documents import JsonObject
from worker.jobs.models import Base

__all__ = ["ApiProcess", "Base", "BulkAction", "StoresReload"]


class ApiProcess(Base):
    """An API process that runs, or that ran until it was killed; it says every 2 s with which profiles it works."""

    __tablename__ = "api_process"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stores: Mapped[JsonObject | None]


class StoresReload(Base):
    """The latest reload of the stores files that was asked for; one row."""

    __tablename__ = "stores_reload"

    name: Mapped[str] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    key: Mapped[str]
    version: Mapped[str | None]
    asked_at: Mapped[datetime | None]


class BulkAction(Base):
    """An action on all jobs that match a filter; the leader carries it out in batches, newest job first."""

    __tablename__ = "bulk_action"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[str | None]
    action: Mapped[str]
    filter: Mapped[str]
    options: Mapped[JsonObject]
    actor: Mapped[str]
    key_id: Mapped[UUID]
    key_name: Mapped[str]
    key_tenant: Mapped[str]
    person: Mapped[str | None]
    reason: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    total: Mapped[int]
    done: Mapped[int] = mapped_column(server_default=text("0"))
    changed: Mapped[int] = mapped_column(server_default=text("0"))
    refused: Mapped[int] = mapped_column(server_default=text("0"))
    refusals: Mapped[JsonObject] = mapped_column(server_default=text("'{}'"))
    cursor: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('running', 'done', 'stopped')", name="state"),
        Index("ix_bulk_action_running", "id", postgresql_where=text("state = 'running'")),
    )
