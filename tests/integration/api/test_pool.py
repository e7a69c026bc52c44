"""A pool whose every connection turns out to be closed is a database that is away, for reads and writes alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy.exc
from sqlalchemy import event, text

from worker.db import UNAVAILABLE, Database

if TYPE_CHECKING:
    from collections.abc import Iterator


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
