"""The way to Postgres: a pool of autocommit connections, and transactions where a move takes several statements."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import psycopg
import sqlalchemy.exc
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from pydantic_core import from_json
from sqlalchemy import QueuePool, event

from worker.db.connection import PooledConnection, Row
from worker.db.session_settings import engine, opened, startup
from worker.db.url import DatabaseUrl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine, PoolProxiedConnection
    from sqlalchemy.orm import Session

UNAVAILABLE = (
    psycopg.OperationalError,  # SerializationFailure and DeadlockDetected are of this kind
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a former primary, after a failover
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
)
"""What is raised while the database is away, overloaded or failing over: the same statement may be sent again."""

DATABASE_ERRORS = (psycopg.Error, sqlalchemy.exc.SQLAlchemyError)
"""Whatever a database raises: unavailable, or a statement that failed."""

Connection = psycopg.Connection[Row]
"""A psycopg connection as `worker.jobs` uses it: rows are dicts; every statement commits, unless in a transaction."""


class Database:
    """A pool of connections to one database; safe to be used by several threads.

    Lists and pages read with SQLAlchemy (`session`); the moves of jobs and slices are hand-written SQL (`connection`,
    `transaction`), for which a connection that the pool has given once is lent again and again without it.
    """

    def __init__(
        self,
        url: str | DatabaseUrl,
        *,
        pool_size: int = 5,
        pooled: bool = False,
        plan_once: bool = False,
        application: str = "sliceway",
        keep: Iterable[str] = (),
    ) -> None:
        """Open nothing yet.

        Args:
            url: where it is, `postgresql+psycopg://…`, or its parts.
            pool_size: connections kept; as many again may be opened under load.
            pooled: whether a pooler is there, which hands connections on: nothing is prepared on the server, and the
                session settings are the role's (`worker/db/upgrade.py`).
            plan_once: whether each statement is planned at its first use and never again: for a process that sends the
                same few all day, whose planning costs several times their running.
            application: how the connections are named in `pg_stat_activity`.
            keep: the statements for which each connection keeps a cursor.
        """
        plan_once = plan_once and not pooled
        self.engine: Engine = engine(
            url,
            pooled=pooled,
            plan_once=plan_once,
            opener=partial(_open, frozenset(keep)),
            poolclass=QueuePool,
            isolation_level="AUTOCOMMIT",
            json_deserializer=from_json,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=30,
            pool_use_lifo=True,
            connect_args={
                "application_name": application,
                "prepare_threshold": None if pooled else 0 if plan_once else 5,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
            },
        )
        event.listen(self.engine, "checkout", _refuse_ended)
        self._idle: list[PoolProxiedConnection] = []
        self._closed = False

    @contextmanager
    def connection(self, *, opened_after_s: float = 0.0) -> Iterator[Connection]:
        """Lend a connection on which every statement commits by itself; a broken one is thrown away.

        Args:
            opened_after_s: on the monotonic clock; what was opened before is thrown away, too: where one connection
                was cut, the others of its age are as a rule about to be.
        """
        lent = self._take(opened_after_s)
        connection = _driver(lent)
        try:
            yield connection
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            lent.invalidate()  # a session stays as read-only as it began; the next may write, or lead to the primary
            raise
        finally:
            self._give_back(lent, connection.pgconn.transaction_status)

    def _take(self, opened_after_s: float) -> PoolProxiedConnection:
        while self._idle:
            with suppress(IndexError):  # another thread took it
                lent = self._idle.pop()
                if not _driver(lent).ended() and _driver(lent).opened_at_s >= opened_after_s:
                    return lent
                lent.invalidate()
                lent.close()
        while True:
            with _lending():
                lent = self.engine.raw_connection()
            if _driver(lent).opened_at_s >= opened_after_s:
                return lent
            lent.invalidate()
            lent.close()

    def _give_back(self, lent: PoolProxiedConnection, status: int) -> None:
        """Keep it if it is whole, unless more are open than are to be: then it is the pool that sees to it."""
        if status == TransactionStatus.IDLE and not self._closed and self._pool.overflow() <= 0:
            self._idle.append(lent)
            return
        if lent.is_valid and (self._closed or status == TransactionStatus.ACTIVE):
            lent.invalidate()  # active: a signal came in the middle of a statement, whose answer is still on its way
        lent.close()

    @property
    def _pool(self) -> QueuePool:
        return cast("QueuePool", self.engine.pool)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection inside a transaction: committed at the end, rolled back on any error."""
        with self.connection() as connection, connection.transaction():
            yield connection

    @contextmanager
    def session(self, *, opened_after_s: float = 0.0) -> Iterator[Session]:
        """Lend an ORM session for reading; see `connection`."""
        from sqlalchemy.orm import Session  # noqa: PLC0415 - a worker does not pay for it at start

        if not self._pool.checkedin():
            self._return_one()  # rather than open another
        with _lending():
            connection = self.engine.connect()
            while _driver(connection.connection).opened_at_s < opened_after_s:
                connection.invalidate()
                connection.close()
                connection = self.engine.connect()
        with connection, Session(connection) as session:
            yield session

    def close(self) -> None:
        """Close the pool; a connection that is lent is closed when it comes back."""
        self._closed = True
        while self._idle:
            self._return_one()
        self.engine.dispose()

    def _return_one(self) -> None:
        """Give the pool one of those that lie idle, if there is one."""
        with suppress(IndexError):
            self._idle.pop().close()


def _driver(lent: PoolProxiedConnection) -> PooledConnection:
    return cast("PooledConnection", lent.driver_connection)


@contextmanager
def _lending() -> Iterator[None]:
    try:
        yield
    except sqlalchemy.exc.InvalidRequestError as error:
        # the pool gives up after two connections that the server had closed
        raise psycopg.OperationalError(f"every connection lent was closed: {error}") from error
    except OSError as error:  # psycopg's own, of what it waits with: no file can be opened any more
        raise psycopg.OperationalError(f"no connection can be opened: {error}") from error


def _open(keep: frozenset[str], **arguments: Any) -> PooledConnection:
    began_s = time.monotonic()
    made = PooledConnection.connect(**arguments)
    made.opened_at_s = began_s
    made.keeps = keep
    return made


def _refuse_ended(connection: PooledConnection, *_: object) -> None:
    """Have a connection replaced that was closed while it lay idle, and all others of its age.

    Without this a restart of the database would cost one failure for every connection in the pool.
    """
    if connection.ended():
        raise sqlalchemy.exc.InvalidatePoolError


def connect(url: str | DatabaseUrl, *, pooled: bool = False, **options: Any) -> Connection:
    """Open a connection of its own, with the same session settings; the caller closes it.

    Raises:
        UnexpectedPoolerError: a pooler is there, and not `pooled`.
        psycopg.OperationalError: the database cannot be reached.
    """
    arguments = startup(url, pooled=pooled, **{"prepare_threshold": None if pooled else 5} | options)
    connection: Connection = opened(arguments | {"autocommit": True, "row_factory": dict_row}, pooled=pooled)
    return connection


def conninfo(url: str | DatabaseUrl) -> str:
    """Return where the database is as psycopg takes it, for connections without our session settings."""
    return make_conninfo(**DatabaseUrl.of(url).keywords())
