"""An office for dispatchers, on a database and a broker of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.integration.dispatch.office import Office
from tests.integration.jobs.bench import Bench
from worker.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def office(database_url: str, broker_url: str) -> Iterator[Office]:
    database = Database(database_url)
    with redis.Redis.from_url(broker_url) as queue:
        made = Office(Bench(database, database_url), database_url, broker_url, queue)
        made.bench.know_link()
        yield made
        made.stop()
    database.close()
