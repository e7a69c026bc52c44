"""What operators see in Flower, and what a revoke there does: a real Flower, its own view of the tasks.

Each promise holds with the short path and with the stock parts of Celery and kombu.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from celery import Celery

from tests.support.deadline import DEADLINE_S
from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES
from worker.broker.publisher import Broker
from worker.ids import task_id
from worker.jobs.rows import Dispatched
from worker.local.ports import free_port
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job


class Flower:
    """A running Flower."""

    def __init__(self, site: Installation) -> None:
        self.site = site
        port = free_port()
        command = [sys.executable, "-m", "celery", "-A", "worker", "flower", "--address=127.0.0.1", f"--port={port}"]
        environ = site.environ | {"FLOWER_UNAUTHENTICATED_API": "true"}
        self._child = Child(command, log=site.folder / "flower.log", env=environ)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        assert wait_until(self._hears, timeout_s=DEADLINE_S, poll_s=0.1), (site.folder / "flower.log").read_text()

    def _hears(self) -> bool:
        """Whether events of a worker have arrived: what was sent before is lost to it."""
        try:
            return True in self._client.get("/api/workers", params={"status": "true"}).json().values()
        except (httpx.HTTPError, ValueError):
            return False

    def tasks(self, job: Job) -> dict[str, dict[str, Any]]:
        """What it knows of a job's tasks, by id."""
        tasks = self._client.get("/api/tasks").raise_for_status().json()
        return {uuid: task for uuid, task in tasks.items() if job.id in (task["args"] or "")}

    def state(self, task: str) -> str | None:
        """The state in which it shows a task."""
        answer = self._client.get(f"/api/task/info/{task}")
        return str(answer.json()["state"]) if answer.status_code == httpx.codes.OK else None

    def revoke(self, task: str) -> None:
        """What its button does."""
        self._client.post(f"/api/task/revoke/{task}").raise_for_status()

    def close(self) -> None:
        self._client.close()
        self._child.stop()


@pytest.fixture(scope="module")
def flowers() -> Iterator[list[Flower]]:
    """The Flowers of this module: one as long as the installation is the same."""
    flowers: list[Flower] = []
    yield flowers
    for flower in flowers:
        flower.close()


@pytest.fixture(scope="module", params=["auto", "stock"])
def celery(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def flower(site: Installation, flowers: list[Flower], celery: str) -> Flower:
    site.workers(1, SLICEWAY_WORKER_THREADS="4", SLICEWAY_CELERY=celery)
    if not flowers or flowers[-1].site is not site:
        flowers.append(Flower(site))
    return flowers[-1]


def slice_task(job: Job, number: int, *, run: int = 1) -> str:
    return task_id(UUID(job.id), str(number), job.row["epoch"], run)


def test_a_slice_is_one_task_across_its_attempts(site: Installation, flower: Flower) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=SLICE_BYTES, count=1, status=503, code=-196)
    site.store.hold("data", key, offset=2 * SLICE_BYTES, count=1)
    job = site.enqueue(2 * MIB, key)
    site.until(lambda: flower.state(slice_task(job, 2)) == "STARTED", "a slice shown as started")
    [held] = site.store.held("data", key)
    site.store.control.release(held["number"])
    job.succeeds()
    slices = [slice_task(job, number) for number in range(4)]
    site.until(lambda: {flower.state(each) for each in slices} == {"SUCCESS"}, "all slices shown as done")
    finish = task_id(UUID(job.id), "sliceway.finish", 1, 1)
    site.until(lambda: flower.state(finish) == "SUCCESS", "the finish shown as done: events travel in batches")
    tasks = flower.tasks(job)
    names = sorted(task["name"] for task in tasks.values())
    assert names == ["sliceway.finish", "sliceway.init", *["sliceway.slice"] * 4]
    assert tasks[slices[1]]["retried"] is not None
    assert tasks[slices[0]]["retried"] is None
    assert f"main:{job.key} slice 2/4 bytes 524288-1048575" in tasks[slices[1]]["args"]


def publish_again(site: Installation, job: Job, row: dict[str, Any]) -> None:
    """Put a copy of a slice's message into the broker, as a second leader might."""
    whole = job.row
    message = Dispatched.from_row(
        row
        | {"state": "uploading", "slice_size_bytes": row["size_bytes"]}
        | {name: whole[name] for name in ("epoch", "run", "store", "key", "slices_total", "traceparent")}
    )
    with Celery("second", broker=site.broker_url, set_as_current=False) as celery:
        broker = Broker(celery)
        broker.publish([message])
        broker.close()


def test_a_copy_of_a_message_is_never_shown_as_done(site: Installation, flower: Flower) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("data", key, offset=0)
    job = site.enqueue(2 * MIB, key)
    site.store.held("data", key)
    row, log = job.slices[0], site.logs()[0]
    publish_again(site, job, row)
    site.until(lambda: "another copy of the message" in log.read_text(), "the copy ignored")
    site.until(lambda: flower.state(slice_task(job, 0)) == "STARTED", "still on its way")
    let_go()
    site.until(lambda: flower.state(slice_task(job, 0)) == "SUCCESS", "shown as done")
    stale = log.read_text().count("claim.stale")
    publish_again(site, job, row)
    site.until(lambda: log.read_text().count("claim.stale") > stale, "the late copy ignored")
    assert flower.state(slice_task(job, 0)) == "SUCCESS"
    job.succeeds()
    assert job.sent_twice_bytes() == 0


def test_a_slice_that_failed_for_good_is_shown_as_failed(site: Installation, flower: Flower) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=0, status=400, code=-5999, count=1)
    job = site.enqueue(2 * MIB, key)
    job.fails()
    site.until(lambda: flower.state(slice_task(job, 0)) == "FAILURE", f"shown as failed, not {flower.tasks(job)}")
    job.act("retry")
    job.succeeds()
    site.until(lambda: flower.state(slice_task(job, 0, run=2)) == "SUCCESS", "shown as done")


def test_a_revoke_of_a_slice_on_its_way_pauses_its_job(site: Installation, flower: Flower) -> None:
    site.store.control.change(rate_bytes_per_s=3 * MIB)
    job = site.enqueue(12 * MIB, slice_size=3 * MIB)
    site.until(lambda: flower.state(slice_task(job, 0)) == "STARTED", "a slice on its way")
    flower.revoke(slice_task(job, 0))
    site.until(lambda: job.row["paused_at"], "the job paused")
    assert "revoked" in job.view["waiting"]["pause_reason"]
    site.until(lambda: not any(row["state"] in {"sending", "dispatched"} for row in job.slices), "what was in flight")
    assert job.slices[0]["state"] == "pending"
    assert job.slices[0]["attempts"] == 0
    site.store.control.change(rate_bytes_per_s=None)
    job.act("retry")
    job.succeeds()
    site.until(lambda: flower.state(slice_task(job, 0, run=job.row["run"])) == "SUCCESS", "shown as done")
    assert "paused" in job.kinds
    assert "resumed" in job.kinds


def test_a_revoke_of_a_task_that_no_worker_has_taken_yet_pauses_its_job(site: Installation, flower: Flower) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("data", key)
    blocker = site.enqueue(2 * MIB, key)
    site.store.held("data", key, 4)  # all threads are taken
    job = site.enqueue(2 * MIB)
    site.until(lambda: job.row["step"] == "dispatched", "its init in the broker")
    flower.revoke(task_id(UUID(job.id), "sliceway.init", 1, 1))
    let_go()
    site.until(lambda: job.row["paused_at"], "the job paused")
    assert job.state == "queued"
    job.act("retry")
    job.succeeds()
    blocker.succeeds()


def test_a_revoked_abort_is_done_nevertheless(site: Installation, flower: Flower) -> None:
    key = site.fresh_key()
    let_go = site.store.hold("data", key)
    job = site.enqueue(12 * MIB, key)
    site.store.held("data", key, 4)
    flower.revoke(task_id(UUID(job.id), "sliceway.abort", 1, 1))
    job.act("cancel")
    let_go()
    job.reaches("cancelled")
    assert key not in site.store.unfinished()


def test_a_revoke_by_celerys_own_command_does_the_same(site: Installation) -> None:
    site.workers(2)
    let_go = site.store.hold("data", "commanded", offset=0)
    job = site.enqueue(2 * MIB, "commanded")
    site.store.held("data", "commanded")
    with Celery("operator", broker=site.broker_url, set_as_current=False) as celery:
        celery.control.revoke(slice_task(job, 0))
    site.until(lambda: any("revoked" in log.read_text() for log in site.logs()), "the revoke heard")
    let_go()
    site.until(lambda: job.row["paused_at"] or job.state == "succeeded", "the job paused, or done before it was heard")
    if job.row["paused_at"]:
        job.act("retry")
    job.succeeds()
