"""What monitors that live on Celery's events and commands see of an upload: queue, states, runtime, load."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from tests.support.deadline import DEADLINE_S
from tests.support.flower import FlowerProcess
from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES
from worker.ids import task_id
from worker.jobs.task_names import QUEUE, TaskName
from worker.local.process import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job

DOCUMENTED = {"uuid", "name", "args", "kwargs", "retries", "eta", "hostname", "timestamp", "root_id", "parent_id"}
"""The fields of `task-received` in Celery's manual."""


class Monitor:
    """Celery's receiver of events, and the state of tasks and workers that it derives from them."""

    def __init__(self, site: Installation) -> None:
        self._site = site
        self.app = Celery("monitor", broker=site.broker_url, set_as_current=False)
        self.events: list[dict[str, Any]] = []
        self.state = self.app.events.State()
        self._connection = self.app.connection_for_read()
        receiver = self.app.events.Receiver(self._connection, handlers={"*": self._note})
        self._turns = receiver.itercapture(limit=None, timeout=DEADLINE_S, wakeup=True)

    def _note(self, event: dict[str, Any]) -> None:
        self.events.append(dict(event))
        self.state.event(event)

    def until(self, seen: Callable[[], object], what: str) -> None:
        """Take in events until something is seen; a worker's heartbeats are events, too."""
        self._site.until(lambda: next(self._turns, None) or seen(), what)

    def task(self, task: str) -> Any:
        """What is known of a task."""
        return self.state.tasks.get(task)

    def kinds(self, task: str) -> Counter[str]:
        """How many events of each type a task had."""
        return Counter(event["type"] for event in self.events if event.get("uuid") == task)

    def __enter__(self) -> Self:
        self.until(lambda: list(self.state.alive_workers()), "a worker's heartbeat")
        return self

    def __exit__(self, *_: object) -> None:
        self._turns.close()
        self._connection.release()
        self.app.close()


def slice_task(job: Job, number: int) -> str:
    return task_id(UUID(job.id), str(number), 1, 1)


def finish_task(job: Job) -> str:
    return task_id(UUID(job.id), TaskName.FINISH, 1, 1)


def retried_once(site: Installation) -> Job:
    """Upload four slices; the store refuses the second one once."""
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=SLICE_BYTES, count=1, status=503, code=-196)
    job = site.enqueue(2 * MIB, key)
    job.succeeds()
    return job


@pytest.mark.parametrize("celery", ["auto", "stock"])
def test_a_receiver_sees_queue_runtime_and_each_state(site: Installation, celery: str) -> None:
    site.workers(1, SLICEWAY_WORKER_THREADS="4", SLICEWAY_CELERY=celery)
    with Monitor(site) as monitor:
        job = retried_once(site)
        monitor.until(lambda: getattr(monitor.task(finish_task(job)), "succeeded", None), "the finish shown as done")
        slices = [slice_task(job, number) for number in range(4)]
        for each in (task_id(UUID(job.id), TaskName.INIT, 1, 1), *slices, finish_task(job)):
            task = monitor.task(each)
            assert (task.queue, task.state) == (QUEUE, "SUCCESS")
            assert task.received <= task.started <= task.succeeded
            assert task.runtime > 0
            assert monitor.kinds(each)["task-succeeded"] == 1
        assert [monitor.kinds(each)["task-retried"] for each in slices] == [0, 1, 0, 0]
        assert min(monitor.kinds(slices[1])[kind] for kind in ("task-received", "task-started")) == 2
        [retry] = [event for event in monitor.events if event["type"] == "task-retried"]
        assert "Transient" in retry["exception"]
        assert "HTTP 503" in retry["exception"]
        received = [event for event in monitor.events if event["type"] == "task-received"]
        assert all(event.keys() >= DOCUMENTED for event in received)


def test_a_receiver_sees_a_task_that_failed_for_good(site: Installation) -> None:
    site.workers(1, SLICEWAY_WORKER_THREADS="4")
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=0, status=400, code=-5999, count=1)
    with Monitor(site) as monitor:
        job = site.enqueue(2 * MIB, key)
        job.fails()
        monitor.until(lambda: getattr(monitor.task(slice_task(job, 0)), "failed", None), "the slice shown as failed")
        task = monitor.task(slice_task(job, 0))
        assert (task.name, task.queue, task.state) == (TaskName.SLICE, QUEUE, "FAILURE")
        assert task.exception.startswith("Permanent(")  # celery-exporter's label `exception` is the part before "("
        assert monitor.kinds(slice_task(job, 0))["task-failed"] == 1
    job.act("retry")
    job.succeeds()


def test_heartbeats_and_inspect_say_what_a_worker_does(site: Installation) -> None:
    site.workers(0)
    [worker] = site.workers(1, SLICEWAY_WORKER_THREADS="4")
    with Monitor(site) as monitor:
        job, let_go = site.enqueue_held(4 * MIB, requests=4)

        def seen() -> Any:
            [seen] = monitor.state.workers.values()
            return seen

        monitor.until(lambda: seen().active == 4, "the slices in flight in a heartbeat")
        asked = monitor.app.control.inspect(limit=1, timeout=DEADLINE_S)
        assert asked.stats()[seen().hostname]["pool"]["processes"] == [worker.pid]
        assert [queue["name"] for queue in asked.active_queues()[seen().hostname]] == [QUEUE]
        assert {task["name"] for task in asked.active()[seen().hostname]} == {TaskName.SLICE}
        assert set(asked.registered()[seen().hostname]) == set(TaskName)
        with site.broker() as broker:  # as exporters count a queue's messages
            site.until(lambda: broker.llen(QUEUE), "the other slices in the queue")
        let_go()
        job.succeeds()
        monitor.until(lambda: seen().active == 0 and seen().processed >= 10, "an idle worker in a heartbeat")
        worker.stop()
        monitor.until(lambda: monitor.events[-1]["type"] == "worker-offline", "the worker's farewell")
        assert not list(monitor.state.alive_workers())


def flower_metrics(flower: FlowerProcess) -> dict[tuple[str, ...], float]:
    """The values of Flower's metrics of tasks, by sample, task and type of event."""
    values: Counter[tuple[str, ...]] = Counter()
    text = flower.client.get("/metrics").raise_for_status().text
    for sample in (each for family in text_string_to_metric_families(text) for each in family.samples):
        labels = (sample.labels.get(name) for name in ("task", "type"))
        values[sample.name, *(label for label in labels if label)] += sample.value  # type: ignore[assignment]
    return dict(values)


def test_flower_counts_events_and_runtime_by_task(site: Installation) -> None:
    site.workers(1, SLICEWAY_WORKER_THREADS="4")
    with FlowerProcess(site) as flower:
        retried_once(site)
        last = ("flower_events_total", "sliceway.finish", "task-succeeded")
        site.until(lambda: flower_metrics(flower).get(last), "the finish counted")
        found = flower_metrics(flower)
    slices = {kind: found["flower_events_total", "sliceway.slice", f"task-{kind}"] for kind in ("succeeded", "retried")}
    assert slices == {"succeeded": 4, "retried": 1}
    for name, count in (("sliceway.init", 1), ("sliceway.slice", 5), ("sliceway.finish", 1)):
        assert found["flower_events_total", name, "task-received"] >= count
        assert found["flower_events_total", name, "task-started"] >= count
        assert found["flower_task_runtime_seconds_sum", name] > 0
        assert found["flower_worker_prefetched_tasks", name] == 0


@pytest.fixture
def dump(site: Installation) -> Iterator[Callable[[], str]]:
    """What `celery events --dump` has printed so far."""
    site.workers(1, SLICEWAY_WORKER_THREADS="4")
    log = site.folder / "dump.log"
    child = Child([sys.executable, "-m", "celery", "-A", "worker", "events", "--dump"], log=log, env=site.environ)
    site.until(lambda: "] heartbeat: " in log.read_text(), "a heartbeat dumped")
    yield log.read_text
    child.stop()


def test_celerys_dump_prints_each_event(site: Installation, dump: Callable[[], str]) -> None:
    job = retried_once(site)
    site.until(lambda: f"task succeeded: sliceway.finish({finish_task(job)})" in dump(), "the finish dumped")
    for number in range(4):
        task = f"sliceway.slice({slice_task(job, number)}) args=job={job.id}"
        for kind in ("received", "started", "succeeded"):
            assert f"task {kind}: {task}" in dump()
    assert f"task retried: sliceway.slice({slice_task(job, 1)})" in dump()
    assert f"queue={QUEUE}" in dump()
    assert "message.refused" not in dump()
