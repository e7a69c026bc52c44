"""The note of `/readyz` about live workers that consume nothing."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.integration.api.job_requests import enqueue

OLD, NEW = "now() - interval '45 s'", "now() - interval '1 s'"
WORKER = "INSERT INTO worker (id, name, slots, roots, heartbeat_at) VALUES (%(id)s, 'w@host:1', 8, '{}', {at})"


def dispatch(api: Any, job: str, at: str) -> None:
    api.sql(f"UPDATE job SET step = 'dispatched', token = 1, dispatched_at = {at} WHERE id = %(job)s", job=job)  # noqa: S608


def note(api: Any) -> str | None:
    answer = api.client().get("/readyz").raise_for_status().json()
    assert answer["status"] == "ready"
    found: str | None = answer["note"]
    return found


def test_live_workers_that_consume_nothing_are_reported(own_api: Any) -> None:
    worker = uuid.uuid4()
    job = enqueue(own_api.client(), "a")
    dispatch(own_api, job, OLD)
    assert note(own_api) is None  # there is no worker
    own_api.sql(WORKER.replace("{at}", "now()"), id=worker)
    text = note(own_api)
    assert text is not None
    assert text.startswith("of 1 live worker processes none has taken what was dispatched 4")
    running = enqueue(own_api.client(), "b")
    own_api.move(
        running, "initializing", step="running", worker=worker, lease_until="infinity", token=1, started_at="now"
    )
    assert note(own_api) is None  # it is busy


@pytest.mark.parametrize(("dispatched", "beat"), [(NEW, "now()"), (OLD, "now() - interval '2 min'")])
def test_a_message_that_waits_for_a_moment_or_without_live_workers_is_not_reported(
    own_api: Any, dispatched: str, beat: str
) -> None:
    dispatch(own_api, enqueue(own_api.client(), "a"), dispatched)
    own_api.sql(WORKER.replace("{at}", beat), id=uuid.uuid4())
    assert note(own_api) is None
