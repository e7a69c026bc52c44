"""A dispatcher harness on a database and a broker of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.integration.dispatch.harness import DispatcherHarness
from tests.integration.jobs.database import JobsDatabase
from worker.db.pool import Database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def harness(database_url: str, broker_url: str) -> Iterator[DispatcherHarness]:
    database = Database(database_url)
    with redis.Redis.from_url(broker_url) as queue:
        made = DispatcherHarness(JobsDatabase(database, database_url), database_url, broker_url, queue)
        made.db.know_link()
        yield made
        made.stop()
    database.close()
