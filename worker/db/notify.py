"""The channel by which a commit wakes the dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.db.pool import Connection, connect

if TYPE_CHECKING:
    from worker.db.url import DatabaseUrl


WAKE_CHANNEL = "sliceway_work"
URGENT = "now"
"""The payload of a notification without which slots may stay idle."""


def listen(url: str | DatabaseUrl) -> Connection:
    """Open a connection of its own that listens for work; the caller closes it.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    connection = connect(
        url,
        application_name="sliceway listen",
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
    )
    connection.execute(f"LISTEN {WAKE_CHANNEL}")
    return connection
