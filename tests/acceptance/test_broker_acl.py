"""A broker whose user may do no more than docs/operating.md says, or that shows nothing of itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from sqlalchemy import make_url

from tests.support.command import findings
from tests.support.flower import FlowerProcess
from tests.support.installation import MIB
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation

MANUAL = Path(__file__).parents[2] / "docs" / "operating.md"
PASSWORD = "fake-secret-broker"


def rules(database: str | None) -> list[str]:
    """The rules of the user that the manual has, for a database of the broker."""
    [line] = re.findall(r"^ +ACL SETUSER sliceway (.+)$", MANUAL.read_text().replace("\\\n", ""), re.MULTILINE)
    rules: list[str] = line.split()
    return [rule.replace("&/0.", f"&/{database}.") for rule in rules if not rule.startswith(">")]


@pytest.fixture
def least(site: Installation, request: pytest.FixtureRequest) -> Iterator[str]:
    """The broker's URL for a user that may do what `request.param` says."""
    url = make_url(site.broker_url)
    name = f"least-{url.database}"
    with site.broker() as broker:
        broker.execute_command("ACL", "SETUSER", name, "reset", f">{PASSWORD}", *(request.param or rules(url.database)))
        broker.execute_command("ACL", "LOG", "RESET")
        yield url.set(username=name, password=PASSWORD).render_as_string(hide_password=False)
        broker.execute_command("ACL", "DELUSER", name)


def denied(site: Installation) -> list[str]:
    """What the user wanted to do and may not."""
    with site.broker() as broker:
        log = broker.execute_command("ACL", "LOG")
    return [str(entry) for entry in log if b"least-" in str(entry).encode()]


def doctor(site: Installation, url: str) -> dict[str, tuple[str, str]]:
    """What the doctor says of the broker."""
    found = findings(site.environ | {"SLICEWAY_BROKER_URL": url})
    return {check: (each["level"], each["text"]) for check, each in found.items() if "broker" in check}


@pytest.mark.parametrize("least", [None], indirect=True, ids=["of-the-manual"])
def test_the_least_user_of_the_manual_is_enough(site: Installation, least: str) -> None:
    workers = site.workers(2, SLICEWAY_BROKER_URL=least)
    job, let_go = site.enqueue_held(5 * MIB, offset=0, count=1)
    victim = site.holder(job, 0)
    assert victim in workers
    victim.kill()
    site.until(lambda: "worker_lost" in job.kinds, "its claims freed")
    let_go()
    job.succeeds()
    with FlowerProcess(site, {"SLICEWAY_BROKER_URL": least}) as flower:
        seen = site.enqueue(2 * MIB)
        seen.succeeds()
        site.until(lambda: len(flower.get("/api/tasks")) > 1, "Flower seeing its slices")
        assert flower.queue() == {"name": QUEUE, "messages": 0}
        with Celery(broker=least) as app:
            assert app.control.ping(timeout=5)
    found = doctor(site, least)
    assert found["broker"][0] == "ok"
    assert {level for level, _ in found.values()} <= {"ok", "note"}
    assert denied(site) == []


NO_CONFIG = ["on", "~*", "&*", "+@all", "-config"]
HIDDEN = ("note", "not seen: the server refuses CONFIG")


@pytest.mark.parametrize("least", [NO_CONFIG], indirect=True, ids=["no-config"])
def test_a_broker_without_config_works(site: Installation, least: str) -> None:
    [worker] = site.workers(1, SLICEWAY_BROKER_URL=least)
    site.enqueue(2 * MIB).succeeds()
    assert worker.alive
    found = doctor(site, least)
    assert (found["broker"][0], found["broker memory"][0]) == ("ok", "ok")
    assert found["broker timeout and persistence"] == HIDDEN


@pytest.mark.parametrize("least", [[*NO_CONFIG, "-info"]], indirect=True, ids=["no-config-no-info"])
def test_a_broker_that_shows_nothing_of_itself_works(site: Installation, least: str) -> None:
    [worker] = site.workers(1, SLICEWAY_BROKER_URL=least)
    site.enqueue(2 * MIB).succeeds()
    assert worker.alive
    found = doctor(site, least)
    assert found["broker"][0] == "ok"
    assert found["broker timeout and persistence"] == found["broker memory"] == HIDDEN
    assert found["broker room"] == ("note", "not seen: the server refuses INFO")
