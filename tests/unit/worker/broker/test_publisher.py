"""The publisher uses Celery's own means for a broker other than Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

from worker.broker.publisher import Broker
from worker.ids import new_id
from worker.jobs.rows import Dispatched
from worker.jobs.states import JobState
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("elsewhere", broker="memory://", set_as_current=False)
    yield made
    with made.connection_for_write() as connection:
        connection.default_channel.queue_purge(QUEUE)


def step() -> Dispatched:
    return Dispatched(new_id(), None, 1, 0, 0, JobState.QUEUED, "main", "a", 0, None, None, None)


def test_its_messages_are_counted_and_name_their_job(app: Celery) -> None:
    broker, rows = Broker(app), [step(), step()]
    broker.publish(rows)
    assert broker.length() == 2
    assert (broker.holds(2), broker.holds(3)) == (True, False)
    broker.publish([step()])
    assert broker.holds(3)
    with app.connection_for_read() as connection:
        jobs = [connection.default_channel.basic_get(QUEUE, no_ack=True).payload[1]["job"] for _ in rows]
    assert jobs == [str(row.job_id) for row in rows]
    assert not broker.was_emptied()
    broker.close()
