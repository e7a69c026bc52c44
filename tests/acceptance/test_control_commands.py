"""Celery's control commands, as Flower's buttons and `celery control` send them: served, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from celery import Celery

from tests.support.deadline import DEADLINE_S
from tests.support.installation import MIB
from tests.support.processes import ALONE
from worker.ids import task_id
from worker.jobs.task_names import QUEUE
from worker.runtime.control import REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation

ARGUMENTS: dict[str, dict[str, Any]] = {
    "autoscale": {"max": 4, "min": 1},
    "add_consumer": {"queue": "other"},
    "cancel_consumer": {"queue": QUEUE},
    "rate_limit": {"task_name": "sliceway.slice", "rate_limit": "1/m"},
    "time_limit": {"task_name": "sliceway.slice", "hard": 1.0},
}


@pytest.fixture
def operator(site: Installation) -> Iterator[Celery]:
    with Celery("operator", broker=site.broker_url, set_as_current=False) as celery:
        yield celery


def test_what_would_stop_the_work_unseen_is_refused_in_the_answer_and_in_the_log(
    site: Installation, operator: Celery
) -> None:
    [worker] = site.workers(1)
    for command, why in REFUSED.items():
        arguments = ARGUMENTS.get(command, {})
        [answer] = operator.control.broadcast(command, arguments=arguments, reply=True, limit=1, timeout=DEADLINE_S)
        assert list(answer.values()) == [{"error": f"refused: {why}"}]
        assert f"control.refused command={command} " in worker.text()
    site.enqueue(2 * MIB).succeeds()
    assert "Traceback" not in worker.text()


def test_a_terminate_pauses_as_a_revoke_does(site: Installation, operator: Celery) -> None:
    [worker] = site.workers(1)
    site.store.control.change(rate_bytes_per_s=3 * MIB)
    job = site.enqueue(12 * MIB, slice_size=3 * MIB)
    first = task_id(UUID(job.id), "0", 1, 1)
    site.until(lambda: job.slices and job.slices[0]["state"] == "sending", "a slice on its way")
    operator.control.revoke(first, terminate=True)
    site.until(lambda: job.row["paused_at"], "the job paused")
    site.store.control.change(rate_bytes_per_s=None)
    job.act("retry")
    job.succeeds()
    assert "Traceback" not in worker.text()


def test_a_worker_that_is_shut_down_hands_its_work_back(site: Installation, operator: Celery) -> None:
    [worker] = site.workers(1, argv=[*ALONE, "-P", "threads"])
    let_go = site.store.hold("data", "handed", offset=0, count=1)
    job = site.enqueue(2 * MIB, "handed")
    site.store.held("data", "handed")
    operator.control.shutdown()
    assert worker.ended()
    let_go()
    assert "Traceback" not in worker.text()
    assert "superuser privileges" not in worker.text()
    site.workers(1)
    job.succeeds()
