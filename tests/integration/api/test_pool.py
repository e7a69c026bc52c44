"""What is lent: whole connections, as many as there may be; a database that is away is told from a fault of ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import event, text

from worker.db.connection import Connection
from worker.db.pool import UNAVAILABLE, Database, conninfo
from worker.jobs.statements import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.db.pool import Tx


@pytest.fixture
def hopeless(database_url: str) -> Iterator[Database]:
    """A database whose connections are closed as soon as they are lent, as in the middle of a restart."""
    database = Database(database_url)

    def closed(*_: Any) -> None:
        raise sqlalchemy.exc.InvalidatePoolError

    event.listen(database.engine, "checkout", closed)
    yield database
    database.close()


def test_a_write_finds_the_database_away(hopeless: Database) -> None:
    with (
        pytest.raises(psycopg.OperationalError, match="every connection lent was closed") as caught,
        hopeless.connection(),
    ):
        pass
    assert isinstance(caught.value, UNAVAILABLE)


def test_a_read_finds_the_database_away(hopeless: Database) -> None:
    with (
        pytest.raises(psycopg.OperationalError, match="every connection lent was closed"),
        hopeless.session() as session,
    ):
        session.execute(text("SELECT 1"))


def cut_off(database: Database) -> None:
    """Be interrupted in the wait for the answer to a statement."""
    with database.connection() as connection:
        connection.pgconn.send_query(b"SELECT pg_sleep(60)")
        raise KeyboardInterrupt


def test_a_statement_that_a_signal_cut_off_leaves_no_connection_behind(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(database_url, pool_size=1)
    with pytest.raises(KeyboardInterrupt):
        cut_off(database)
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
def beside(database_url: str) -> Iterator[Tx]:
    """A connection of the test's own."""
    with Connection.connect(conninfo(database_url), autocommit=True) as connection:
        yield connection


def lend(database: Database, count: int) -> set[int]:
    """Have so many lent at once, use them, and return the server's processes behind them."""
    with ExitStack() as stack:
        return {backend(stack.enter_context(database.connection())) for _ in range(count)}


def backend(connection: Tx) -> int:
    row = connection.execute("SELECT pg_backend_pid() AS pid").fetchone()
    assert row is not None
    return int(row["pid"])


def opened(beside: Tx) -> set[int]:
    found = beside.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'pooled'")
    return {row["pid"] for row in found}


def cut(beside: Tx) -> None:
    """End every connection of the pool, and wait until it is gone."""
    beside.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'pooled'"
    ).fetchall()


def test_a_connection_is_lent_again(pool: Database) -> None:
    assert lend(pool, 2) == lend(pool, 2)


def test_a_restart_of_the_database_fails_nobody(pool: Database, beside: Tx) -> None:
    before = lend(pool, 2)
    cut(beside)
    assert not lend(pool, 2) & before
    cut(beside)
    with pool.session() as session:
        assert session.execute(text("SELECT 1")).scalar() == 1


def test_a_connection_that_ends_while_it_is_lent_is_thrown_away(pool: Database, beside: Tx) -> None:
    def lose() -> None:
        with pool.connection() as connection:
            cut(beside)
            backend(connection)

    with pytest.raises(psycopg.OperationalError):
        lose()
    assert len(lend(pool, 2)) == 2


def test_a_transaction_left_open_is_not_lent_on(pool: Database) -> None:
    with pool.connection() as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE left_open ()")
    with pool.connection() as connection:
        row = connection.execute("SELECT to_regclass('left_open') AS found").fetchone()
    assert row == {"found": None}


def test_after_a_rush_only_as_many_are_kept_as_were_asked_for(pool: Database, beside: Tx) -> None:
    assert len(lend(pool, 4)) == 4
    assert len(lend(pool, 2)) == 2
    assert len(opened(beside)) <= 2  # those that were closed may still be on their way out


def test_who_comes_when_all_are_lent_waits_for_one_that_comes_back(pool: Database) -> None:
    def read() -> int:
        with pool.session() as session:
            return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with ThreadPoolExecutor() as threads:
        with ExitStack() as stack:
            all_there_may_be = {backend(stack.enter_context(pool.connection())) for _ in range(4)}
            write, look = threads.submit(lend, pool, 1), threads.submit(read)
        assert write.result(120) | {look.result(120)} <= all_there_may_be


def test_a_read_uses_what_a_write_has_left(pool: Database, beside: Tx) -> None:
    [left] = lend(pool, 1)
    with pool.session() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar() == left
    assert lend(pool, 1) == opened(beside) == {left}


def test_what_is_lent_while_the_pool_closes_is_closed_when_it_comes_back(database_url: str) -> None:
    database = Database(database_url, pool_size=2)
    lend(database, 2)
    with database.connection() as connection:
        database.close()
        assert backend(connection)
    assert connection.closed


def test_a_statement_of_our_own_is_answered_anew_each_time(pool: Database) -> None:
    statement = sql("count_live")
    with pool.connection() as connection:
        first = connection.execute(statement, {"tenant": "a", "most": 1})
        before = first.fetchall()
        again = connection.execute(statement, {"tenant": "b", "most": 1})
        assert (again.fetchall(), again.fetchone()) == (before, None)
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_columns_that_were_added_are_seen(beside: Tx) -> None:
    """Where statements are not prepared, a migration may come between two of them."""
    statement = "SELECT * FROM grown"
    beside.prepare_threshold = None
    beside.keeps = {statement}  # type: ignore[attr-defined]
    beside.execute("CREATE TABLE grown AS SELECT 1 AS one")
    assert beside.execute(statement).fetchall() == [{"one": 1}]
    beside.execute("ALTER TABLE grown ADD two int DEFAULT 2")
    assert beside.execute(statement).fetchall() == [{"one": 1, "two": 2}]
