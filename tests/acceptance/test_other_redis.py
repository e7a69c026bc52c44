"""A Redis on a Unix socket, and one that sentinels lead to: uploads, Flower and the doctor as over TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from celery import Celery

from tests.support.command import findings
from tests.support.deadline import DEADLINE_S
from tests.support.flower import FlowerProcess
from tests.support.forged import FORGED
from tests.support.installation import MIB
from tests.support.redis_servers import PASSWORD, Sentinels, on_a_socket
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from tests.support.installation import Installation

Row = dict[str, str]


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path) as started:
        yield started


def doctor(site: Installation, given: Row) -> dict[str, tuple[str, str]]:
    """What the doctor says of the broker."""
    found = findings(site.environ | given)
    return {check: (each["level"], each["text"]) for check, each in found.items() if "broker" in check}


def seen_by_flower(site: Installation, flower: FlowerProcess, queue: redis.Redis) -> None:
    """See that Flower hears of tasks, and counts what waits where no worker takes it."""
    job = site.enqueue(2 * MIB)
    job.succeeds()
    site.until(lambda: len(flower.get("/api/tasks")) > 1, "Flower seeing its tasks")
    site.workers(0)
    queue.lpush(QUEUE, "a", "b", "c")
    assert flower.queue() == {"name": QUEUE, "messages": 3}


def test_a_socket_is_served_like_a_port(site: Installation, tmp_path: Path) -> None:
    with on_a_socket(tmp_path) as (server, path):
        url = f"redis+socket://:{PASSWORD}@{quote(path)}?virtual_host=3"
        given = {"SLICEWAY_BROKER_URL": url}
        [worker] = site.workers(1, **given)
        site.enqueue(2 * MIB).succeeds()
        assert "message.refused" not in worker.text()
        keys = server.client.info("keyspace")
        assert set(keys) == {"db3"}
        server.client.select(3)
        server.client.lpush(QUEUE, *FORGED.values())
        site.enqueue(2 * MIB).succeeds()
        assert worker.alive
        with Celery(broker=url) as app:
            assert app.control.ping(timeout=DEADLINE_S, limit=1)
        found = doctor(site, given)
        assert (found["broker"][0], found["broker memory"][0]) == ("ok", "ok")
        with FlowerProcess(site, given) as flower:
            seen_by_flower(site, flower, server.client)


def test_an_upload_goes_on_over_the_failover_of_its_master(site: Installation, sentinels: Sentinels) -> None:
    given = sentinels.environ
    site.workers(2, **given)
    job, let_go = site.enqueue_held(5 * MIB, offset=0, count=1)
    sentinels.lose_master()
    let_go()
    job.succeeds()
    site.enqueue(2 * MIB).succeeds()
    sentinels.replica.client.select(1)
    with FlowerProcess(site, given) as flower:
        seen_by_flower(site, flower, sentinels.replica.client)
    found = doctor(site, given)
    assert (found["broker"][0], "the master at 127.0.0.1:" in found["broker"][1]) == ("ok", True)
    assert (found["broker sentinels"][0], "does not answer" in found["broker sentinels"][1]) == ("note", True)


def test_what_is_wrong_with_the_sentinels_is_said_by_name(site: Installation, sentinels: Sentinels) -> None:
    given = sentinels.environ
    level, text = doctor(site, given | {"SLICEWAY_BROKER_SENTINEL_MASTER": "unknown"})["broker"]
    assert (level, text.endswith("they know no master called unknown")) == ("failed", True)
    level, text = doctor(site, given | {"SLICEWAY_BROKER_SENTINEL_PASSWORD": ""})["broker"]
    assert (level, "HELLO must be called with the client already authenticated" in text) == ("failed", True), text
