"""What the pool holds: psycopg's connection, with cheaper answers to the statements that are sent all day."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Container

    from psycopg import Cursor
    from psycopg.rows import RowMaker

Row = dict[str, Any]

ROLLED_BACK = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
"""What the server undoes for another transaction's sake: nothing has happened, and the same may be sent again."""
REPEATS = 10


class PooledConnection(psycopg.Connection[Any]):
    """A connection whose `execute` answers with dicts, and keeps a cursor for each statement in `keeps`.

    What such a statement answers is to be read before it is sent again on the same connection. A new cursor each time,
    which asks for the names of its columns, costs as much as sending the statement and receiving the answer.
    """

    keeps: Container[str] = ()
    opened_at_s: float = 0.0
    """When its opening began, on the monotonic clock, for whom it matters."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Keep no cursor yet."""
        super().__init__(*args, **options)
        self._kept: dict[str, Cursor[Row]] = {}

    def execute(self, query: Any, params: Any = None, **options: Any) -> Cursor[Row]:
        """Send a statement; returns what reads its rows.

        One that is a transaction of its own is sent again where the server has rolled it back for another's sake, as it
        does under stricter isolation than ours (behind a pooler, the role's); a longer transaction is its owner's.
        """
        cursor = self._kept.get(query) if isinstance(query, str) else None
        if cursor is None:
            cursor = self.cursor(row_factory=_Dicts())
            if isinstance(query, str) and query in self.keeps:
                self._kept[query] = cursor
        for _ in range(REPEATS):
            try:
                return cursor.execute(query, params, **options)
            except ROLLED_BACK:
                if self.pgconn.transaction_status != TransactionStatus.IDLE:
                    raise
        return cursor.execute(query, params, **options)

    def ended(self) -> bool:
        """Say whether a connection that lay idle was closed meanwhile, by the server, too.

        Asks the kernel only: an idle connection has nothing to say, so what can be read is its end.
        """
        pgconn = self.pgconn
        if pgconn.status != ConnStatus.OK:
            return True
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        return bool(poll.poll(0))


class _Dicts:
    """Makes dicts of the rows of one statement, whose columns it asks for their names once."""

    def __init__(self) -> None:
        self._columns = -1
        self._make: RowMaker[Row]

    def __call__(self, cursor: Cursor[Any]) -> RowMaker[Row]:
        columns = cursor.pgresult.nfields if cursor.pgresult else 0
        if columns != self._columns:
            self._columns, self._make = columns, dict_row(cursor)
        return self._make
