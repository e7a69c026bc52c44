"""What `sliceway sql` prints: PostgreSQL prepares it, with the types that its comment names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from worker.db.pool import conninfo
from worker.jobs.explainable import explainable, parameter_types
from worker.jobs.statements import names

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase

ALIASES = {"int": "integer", "int[]": "integer[]", "bool": "boolean", "float8": "double precision"}
ALIASES["bool[]"] = "boolean[]"
ALIASES["timestamptz"] = "timestamp with time zone"


#: A column of another statement: it names that one's row.
PARTS = {"in_flight"}


@pytest.mark.parametrize("name", [name for name in names() if name not in PARTS])
def test_postgresql_prepares_it_with_the_types_that_it_names(db: JobsDatabase, name: str) -> None:
    types = parameter_types(name)
    declared = f"({', '.join(types)})" if types else ""
    with psycopg.connect(conninfo(db.url), autocommit=True) as connection:
        connection.execute(f"PREPARE named{declared} AS {explainable(name)}".encode())
        row = connection.execute("SELECT parameter_types::text[] FROM pg_prepared_statements").fetchone()
    assert row is not None
    assert row[0] == [ALIASES.get(kind, kind) for kind in types]
