"""A database as 0.1 left it: rows that its own workers wrote while they adopted uploads of other content by size.

`rows_of_0_1.json` was read out of an installation of 0.1 (commit 1fb8177) whose workers were killed in the middle. Each
job's key says where it stands. Before it began, an upload of other content was unfinished at its key, begun without a
digest; not so for `own`, whose session is its own. All jobs say `verify: file` and have attributes of their own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from worker.db.migrate import migrate
from worker.db.pool import conninfo

REVISION = "0001"
#: Keys of live jobs that adopted an upload by its size, and the states in which they are.
ADOPTED = ("queued", "initializing", "uploading", "finishing", "cancelling")
SIZE = 4 * 1024 * 1024
#: How many slices of other content, of 512 KiB, each upload had before the job.
FOREIGN_SLICES = dict.fromkeys(ADOPTED, 4) | {"finishing": 8, "failed": 4}
ENDPOINT = "127.0.0.1:30114"
_ROWS = Path(__file__).with_name("rows_of_0_1.json")
_INSERT = "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_recordset(NULL::{table}, %s)"
_MOVE_LEASES = "UPDATE {table} SET lease_until = now() + make_interval(secs => %s) WHERE lease_until IS NOT NULL"


def build(url: str, *, leases_end_in_s: float, revision: str = REVISION) -> None:
    """Make the tables in an empty database, those of `revision`, and fill them."""
    migrate(url, revision)
    rows: dict[str, list[dict[str, Any]]] = json.loads(_ROWS.read_text())
    with psycopg.connect(conninfo(url)) as connection:
        for table, content in rows.items():
            insert = sql.SQL(_INSERT).format(table=sql.Identifier(table))
            connection.execute(insert, [json.dumps(content)])
        connection.execute("SELECT setval('event_id_seq', (SELECT max(id) FROM event))")
        for table in ("job", "slice"):
            connection.execute(sql.SQL(_MOVE_LEASES).format(table=sql.Identifier(table)), [leases_end_in_s])
