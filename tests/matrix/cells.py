"""The cells of the matrix: every broker and every database is in at least one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.matrix import variants

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cell:
    """A broker and a database that the whole system runs on; ``refused``: that it has to refuse."""

    name: str
    broker: Callable[[Path], AbstractContextManager[variants.Settings]]
    database: Callable[[Path], AbstractContextManager[variants.Database]]
    refused: bool = False


CELLS = (
    Cell("redis-password+postgres-14", variants.redis_password, variants.postgres(14)),
    Cell("redis-acl+postgres-18", variants.redis_acl, variants.postgres(18)),
    Cell("redis-database-3+printable-password", variants.redis_database, variants.printable_password),
    Cell("redis-tls+verify-full", variants.redis_tls, variants.verify_full),
    Cell("redis-socket+postgres-16", variants.redis_socket, variants.postgres(16)),
    Cell("sentinel+postgres-17", variants.sentinel, variants.postgres(17)),
    Cell("rabbitmq+schema", variants.rabbitmq, variants.schema),
    Cell("valkey+pgbouncer-direct", variants.valkey, variants.pgbouncer),
    Cell("valkey+pgbouncer-alone", variants.valkey, variants.pgbouncer_alone, refused=True),
)
