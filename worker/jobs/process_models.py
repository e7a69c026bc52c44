"""The tables of processes and of what is asked of all of them; with `models`, all tables."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from worker.jobs.documents import JsonObject
from worker.jobs.models import Base

__all__ = ["ApiProcess", "Base", "StoresReload"]


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
