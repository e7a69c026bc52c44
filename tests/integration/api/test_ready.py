"""What `/readyz` says of workers that live and take nothing."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

OLD, NEW = "now() - interval '45 s'", "now() - interval '1 s'"
WORKER = "INSERT INTO worker (id, name, slots, roots, heartbeat_at) VALUES (%(id)s, 'w@host:1', 8, '{}', {at})"


def enqueue(api: Any, key: str) -> str:
    wish = {"source": {"kind": "file", "root": "media", "path": "a.mp4"}, "store": "main", "key": key}
    return str(api.client().post("/v1/jobs", json=wish).json()["id"])


def hand_out(api: Any, job: str, at: str) -> None:
    api.sql(f"UPDATE job SET step = 'dispatched', token = 1, dispatched_at = {at} WHERE id = %(job)s", job=job)  # noqa: S608


def note(api: Any) -> str | None:
    answer = api.client().get("/readyz").raise_for_status().json()
    assert answer["status"] == "ready"
    found: str | None = answer["note"]
    return found


def test_workers_that_take_nothing_are_named(own_api: Any) -> None:
    worker = uuid.uuid4()
    job = enqueue(own_api, "a")
    hand_out(own_api, job, OLD)
    assert note(own_api) is None  # there is no worker that could
    own_api.sql(WORKER.replace("{at}", "now()"), id=worker)
    said = note(own_api)
    assert said is not None
    assert said.startswith("of 1 live worker processes none has taken what was dispatched 4")
    at_work = enqueue(own_api, "b")
    own_api.move(
        at_work, "initializing", step="running", worker=worker, lease_until="infinity", token=1, started_at="now"
    )
    assert note(own_api) is None  # it is busy


@pytest.mark.parametrize(("handed_out", "beat"), [(NEW, "now()"), (OLD, "now() - interval '2 min'")])
def test_what_waits_for_a_moment_or_has_no_live_worker_is_no_fault(own_api: Any, handed_out: str, beat: str) -> None:
    hand_out(own_api, enqueue(own_api, "a"), handed_out)
    own_api.sql(WORKER.replace("{at}", beat), id=uuid.uuid4())
    assert note(own_api) is None
