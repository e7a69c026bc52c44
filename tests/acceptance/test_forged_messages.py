"""A foreign message in the broker costs a line in the log: no process, no slot, no job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.forged import COMMANDS, FORGED, kwargs, message
from tests.support.installation import MIB
from worker.jobs.task_names import QUEUE, TaskName

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.processes import Worker

JSON = {"SLICEWAY_LOG_FORMAT": "json", "SLICEWAY_LOG_LEVEL": "info"}
PAST = "2020-01-01T00:00:00+00:00"
#: What differs from a message of ours in nothing that matters: it names a job that there is not.
HARMLESS = {"delivery-tag-list", "no-delivery-info", "priority-text", "id-no-uuid", "shadow-list", "timelimit-text"}
HARMLESS |= {"compression-list", "errbacks", "stamped", "traceparent-list", "baggage-long"}


def lines(worker: Worker, since: int) -> list[dict[str, Any]]:
    """What the worker has logged since its log was so long; each line is an object, tracebacks are no lines."""
    return [json.loads(line) for line in worker.text()[since:].splitlines()]


def taken(site: Installation) -> None:
    """Wait until the worker has taken all that was written, and is at work as ever."""
    with site.broker() as broker:
        site.until(lambda: broker.llen(QUEUE) == 0, "the list being empty")
    site.enqueue(1000).succeeds()


def test_garbage_in_the_list_is_a_line_each_and_costs_no_process(site: Installation) -> None:
    [worker] = site.workers(1, **JSON)
    taken(site)
    since = len(worker.text())
    with site.broker() as broker:
        for garbage in FORGED.values():
            broker.lpush(QUEUE, garbage)
    taken(site)
    logged = lines(worker, since)
    site.until(lambda: len(refusals(lines(worker, since))) == len(FORGED) - len(HARMLESS), "a line for each")
    assert worker.alive
    assert [line for line in logged if "traceback" in line] == []
    assert all(len(json.dumps(line)) < 1000 for line in logged)
    job = site.enqueue(5 * MIB)  # every slot is free
    assert job.succeeds()


def refusals(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in logged if line["event"] == "message.refused"]


@pytest.mark.parametrize("task", list(TaskName))
def test_a_forged_message_with_a_past_expiry_pauses_nothing(site: Installation, task: str) -> None:
    [worker] = site.workers(1, **JSON)
    job, let_go = site.enqueue_held(2 * MIB, offset=0)
    said = kwargs(job=job.id, token=10, epoch=job.row["epoch"], **({"number": 0} if task == TaskName.SLICE else {}))
    since = len(worker.text())
    with site.broker() as broker:
        broker.lpush(QUEUE, json.dumps(message(said, task, headers={"expires": PAST})))
    site.until(lambda: refusals(lines(worker, since)), "its refusal")
    let_go()
    job.succeeds()
    assert "paused" not in job.kinds
    assert job.row["paused_at"] is None


def test_garbage_among_the_control_commands_costs_no_process(site: Installation) -> None:
    [worker] = site.workers(1, **JSON)
    taken(site)
    with site.broker() as broker:
        channel = f"/{broker.connection_pool.connection_kwargs['db']}.celery.pidbox"
        site.until(lambda: broker.publish(channel, "no object either") > 0, "a worker that listens")
        for garbage in COMMANDS.values():
            # a command that fails has the worker subscribe anew
            site.until(lambda given=garbage: broker.publish(channel, given) > 0, "a worker that listens")
    taken(site)
    assert worker.alive


def test_a_list_that_is_none_is_waited_for(site: Installation) -> None:
    [worker] = site.workers(1, **JSON)
    taken(site)
    with site.broker() as broker:
        while not broker.set(QUEUE, "no list", nx=True):
            broker.delete(QUEUE)
        job = site.enqueue(1000)
        site.until(lambda: "WRONGTYPE" in worker.text(), "the worker missing its list")
        broker.delete(QUEUE)
    job.succeeds()
    assert worker.alive
