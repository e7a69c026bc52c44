"""Work on the database that a cut connection does not end: it is done once more, on a fresh connection."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar, cast

import psycopg
import sqlalchemy.exc

from worker.db.connection import REPEATS, ROLLED_BACK
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    from worker.db.pool import Connection, Database

T = TypeVar("T")
_log = get_logger(__name__)


class _ConnectionCut(psycopg.OperationalError):
    """The connection ended in the middle of the work; whether its last statement had its effect is not known."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.at_s = time.monotonic()


def run_idempotent(database: Database, work: Callable[[Connection], T]) -> T:
    """Run work on a connection; where that is cut before the work is done, run it once more on a fresh one.

    Only for work that may be done twice: reads, and writes that change nothing the second time, since the answer to a
    commit may be what was lost. Work that the server rolled back for another transaction is run again, too. All other
    errors of the database are raised at once: only a cut says nothing about the next connection.

    Raises:
        psycopg.Error: the work failed, the second connection was cut, too, or none could be opened.
    """
    try:
        with database.connection() as connection, _noticing_a_cut(connection):
            return _until_undisturbed(connection, work)
    except _ConnectionCut as cut:
        _log.warning("database.connection_cut", error=str(cut))
        cut_at_s = cut.at_s
    with database.connection(opened_after_s=cut_at_s) as connection:
        return _until_undisturbed(connection, work)


def _until_undisturbed(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Run work, again where the server rolled it back for another transaction's sake: nothing has happened."""
    for _ in range(REPEATS):
        with suppress(*ROLLED_BACK):
            return work(connection)
    return work(connection)


def read(database: Database, work: Callable[[Session], T]) -> T:
    """Read with an ORM session; where its connection is cut before the end, read once more on a fresh one.

    Raises:
        psycopg.Error, sqlalchemy.exc.SQLAlchemyError: as `run_idempotent`.
    """
    try:
        with database.session() as session, _noticing_a_cut(_behind(session)):
            return work(session)
    except _ConnectionCut as cut:
        _log.warning("database.connection_cut", error=str(cut))
        cut_at_s = cut.at_s
    with database.session(opened_after_s=cut_at_s) as session:
        return work(session)


def _behind(session: Session) -> Connection:
    """Return the connection that the session was made for; it begins nothing."""
    bind = cast("sqlalchemy.Connection", session.bind)
    return cast("Connection", bind.connection.driver_connection)


@contextmanager
def _noticing_a_cut(connection: Connection) -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        if connection.closed:
            raise _ConnectionCut(error) from error
        raise
