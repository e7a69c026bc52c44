"""The audit, page by page. Reads only; apart from `audit.py`, since workers need no models of SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from worker.db.repetition import read
from worker.jobs.models import Audit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from worker.db.pool import Database


def list_audit(
    database: Database, tenant: str | None, *, before: int | None, limit: int
) -> tuple[Sequence[Row[*tuple[Any, ...]]], bool]:
    """Return entries, newest first, that are older than ``before``, and whether there are more.

    ``tenant``: of the keys that acted; None: all.
    """
    statement = select(*Audit.__table__.columns).order_by(Audit.id.desc()).limit(limit + 1)
    if tenant is not None:
        statement = statement.where(Audit.tenant == tenant)
    if before is not None:
        statement = statement.where(Audit.id < before)

    def work(session: Session) -> Sequence[Row[*tuple[Any, ...]]]:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        return session.execute(statement).all()

    rows = read(database, work)
    return rows[:limit], len(rows) > limit
