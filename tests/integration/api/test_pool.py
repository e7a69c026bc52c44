"""The pool of connections: its size, broken connections, and an unreachable database, which is no internal error."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import event, text

from worker.db.connection import PooledConnection
from worker.db.pool import UNAVAILABLE, Database, conninfo
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.db.pool import Connection


@pytest.fixture
def unreachable(database_url: str) -> Iterator[Database]:
    """A database whose connections are closed as soon as they are checked out, as during a restart."""
    database = Database(database_url)

    def closed(*_: Any) -> None:
        raise sqlalchemy.exc.InvalidatePoolError

    event.listen(database.engine, "checkout", closed)
    yield database
    database.close()


def test_a_write_raises_that_the_database_is_unreachable(unreachable: Database) -> None:
    with (
        pytest.raises(psycopg.OperationalError, match="every connection lent was closed") as caught,
        unreachable.connection(),
    ):
        pass
    assert isinstance(caught.value, UNAVAILABLE)


def test_a_read_raises_that_the_database_is_unreachable(unreachable: Database) -> None:
    with (
        pytest.raises(psycopg.OperationalError, match="every connection lent was closed"),
        unreachable.session() as session,
    ):
        session.execute(text("SELECT 1"))


def interrupt(database: Database) -> None:
    """Interrupt the wait for the response to a statement."""
    with database.connection() as connection:
        connection.pgconn.send_query(b"SELECT pg_sleep(60)")
        raise KeyboardInterrupt


def test_a_statement_that_a_signal_interrupted_leaves_no_connection_behind(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(database_url, pool_size=1)
    with pytest.raises(KeyboardInterrupt):
        interrupt(database)
    with database.connection() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    assert not caplog.records
    database.close()


@pytest.fixture
def pool(database_url: str) -> Iterator[Database]:
    """A pool that keeps two connections, and may open two more."""
    database = Database(database_url, pool_size=2, application="pooled")
    yield database
    database.close()


@pytest.fixture
def direct(database_url: str) -> Iterator[Connection]:
    """A connection outside the pool."""
    with PooledConnection.connect(conninfo(database_url), autocommit=True) as connection:
        yield connection


def check_out(database: Database, count: int) -> set[int]:
    """Check out so many connections at once, and return the ids of their server processes."""
    with ExitStack() as stack:
        return {backend(stack.enter_context(database.connection())) for _ in range(count)}


def backend(connection: Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid() AS pid").fetchone()
    assert row is not None
    return int(row["pid"])


def opened(direct: Connection) -> set[int]:
    found = direct.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'pooled'")
    return {row["pid"] for row in found}


def cut(direct: Connection) -> None:
    """End every connection of the pool, and wait for its end."""
    direct.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'pooled'"
    ).fetchall()


def test_a_connection_is_reused(pool: Database) -> None:
    assert check_out(pool, 2) == check_out(pool, 2)


def test_a_restart_of_the_database_fails_no_check_out(pool: Database, direct: Connection) -> None:
    before = check_out(pool, 2)
    cut(direct)
    assert not check_out(pool, 2) & before
    cut(direct)
    with pool.session() as session:
        assert session.execute(text("SELECT 1")).scalar() == 1


def test_a_connection_that_ends_while_it_is_checked_out_is_dropped(pool: Database, direct: Connection) -> None:
    def lose() -> None:
        with pool.connection() as connection:
            cut(direct)
            backend(connection)

    with pytest.raises(psycopg.OperationalError):
        lose()
    assert len(check_out(pool, 2)) == 2


def test_a_transaction_left_open_is_rolled_back(pool: Database) -> None:
    with pool.connection() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE left_open ()")
    with pool.connection() as connection:
        row = connection.execute("SELECT to_regclass('left_open') AS found").fetchone()
    assert row == {"found": None}


def test_after_a_peak_only_pool_size_connections_are_kept(pool: Database, direct: Connection) -> None:
    assert len(check_out(pool, 4)) == 4
    assert len(check_out(pool, 2)) == 2
    assert len(opened(direct)) <= 2  # closed ones may still be ending


def test_a_check_out_waits_when_all_connections_are_in_use(pool: Database) -> None:
    def read() -> int:
        with pool.session() as session:
            return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with ThreadPoolExecutor() as threads:
        with ExitStack() as stack:
            all_connections = {backend(stack.enter_context(pool.connection())) for _ in range(4)}
            write, by_read = threads.submit(check_out, pool, 1), threads.submit(read)
        assert write.result(120) | {by_read.result(120)} <= all_connections


def test_a_read_reuses_the_connection_of_a_write(pool: Database, direct: Connection) -> None:
    [left] = check_out(pool, 1)
    with pool.session() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar() == left
    assert check_out(pool, 1) == opened(direct) == {left}


def test_a_connection_that_is_checked_out_while_the_pool_closes_is_closed_on_return(database_url: str) -> None:
    database = Database(database_url, pool_size=2)
    check_out(database, 2)
    with database.connection() as connection:
        database.close()
        assert backend(connection)
    assert connection.closed


def test_a_prepared_statement_returns_new_rows_each_time(pool: Database) -> None:
    statement = sql("count_live")
    with pool.connection() as connection:
        first = connection.execute(statement, {"tenant": "a", "most": 1})
        before = first.fetchall()
        second = connection.execute(statement, {"tenant": "b", "most": 1})
        assert (second.fetchall(), second.fetchone()) == (before, None)
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_added_columns_are_returned(direct: Connection) -> None:
    """Without prepared statements, a migration may happen between two executions."""
    statement = "SELECT * FROM grown"
    direct.prepare_threshold = None
    direct.keeps = {statement}  # type: ignore[attr-defined]
    direct.execute("CREATE TABLE grown AS SELECT 1 AS one")
    assert direct.execute(statement).fetchall() == [{"one": 1}]
    direct.execute("ALTER TABLE grown ADD two int DEFAULT 2")
    assert direct.execute(statement).fetchall() == [{"one": 1, "two": 2}]
