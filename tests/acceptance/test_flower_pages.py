"""Flower's pages say what an operator looks for, by the names that the doctor has, and its buttons answer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from tests.support.command import findings
from tests.support.flower import FlowerProcess
from tests.support.installation import MIB
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from tests.support.installation import Installation


def leader(site: Installation) -> str:
    """The leader, by the name that the doctor shows."""
    return findings(site.environ)["dispatcher"]["text"].removesuffix(" leads")


def test_its_pages_say_what_is_looked_for_and_its_buttons_answer(site: Installation) -> None:
    [worker] = site.workers(1)
    with FlowerProcess(site) as flower:
        job = site.enqueue(2 * MIB)
        job.succeeds()
        site.until(lambda: len(slices(flower)) == 4, "its slices in Flower")
        uuid, args = next((uuid, args) for uuid, args in slices(flower).items() if "slice 2/4" in args)
        assert args == f"job={job.id} main:{job.key} slice 2/4 bytes 524288-1048575"
        assert args in flower.text(f"/task/{uuid}")
        assert "args" in flower.text("/tasks")
        assert QUEUE in flower.text("/broker")
        assert flower.queue() == {"name": QUEUE, "messages": 0}
        [name] = flower.workers()
        assert leader(site).startswith(f"{name}:")
        buttons: dict[str, dict[str, object]] = {f"pool/{action}": {"n": 1} for action in ("grow", "shrink")}
        buttons |= {"pool/autoscale": {"min": 1, "max": 2}, "queue/cancel-consumer": {"queue": QUEUE}}
        site.until(lambda: name in flower.get("/api/workers?refresh=1"), "the worker known to its buttons")
        for button, fields in buttons.items():
            answer = flower.post(f"/api/worker/{button}/{quote(name)}", **fields)
            assert (answer.status_code, "refused: " in answer.text) == (httpx.codes.FORBIDDEN, True), answer.text
        site.enqueue(2 * MIB).succeeds()
        assert "Traceback" not in worker.text() + flower.log.read_text()


def slices(flower: FlowerProcess) -> dict[str, str]:
    """What it shows of tasks that are slices, by their ids."""
    tasks = flower.get("/api/tasks").items()
    return {uuid: task["args"] for uuid, task in tasks if task["name"] == "sliceway.slice"}
