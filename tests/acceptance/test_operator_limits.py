"""Limits under real workers: as the store itself sees it, there is never more in flight than operators allow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job

PATHS = {"store": "stores/main", "tenant": "tenants/{tenant}"}


def limit(site: Installation, kind: str, job: Job, most: int | None) -> None:
    path = PATHS[kind].format(tenant=job.row["tenant"])
    body = {"max_in_flight": most, "reason": "a shared uplink"}
    site.api.put(f"/v1/limits/{path}", json=body).raise_for_status()


def at_once(site: Installation, job: Job) -> int:
    """How many requests with content of a job the store had at once at most, by when each began and ended there."""
    lines = [json.loads(line) for line in site.store.journal.read_text().splitlines()]
    asked = [
        line for line in lines if line["what"] == "request" and (line.get("op"), line.get("path")) == ("data", job.key)
    ]
    assert asked
    turns = sorted([(line["began"], 1) for line in asked] + [(line["at"], -1) for line in asked])
    return max(sum(step for _, step in turns[: end + 1]) for end in range(len(turns)))


@pytest.fixture
def unlimited(site: Installation) -> Iterator[Installation]:
    """An installation without limits, before and after."""
    yield site
    site.sql("DELETE FROM cap RETURNING name")


@pytest.mark.parametrize("kind", PATHS)
def test_the_store_has_never_more_in_flight_than_is_allowed_now(unlimited: Installation, kind: str) -> None:
    site = unlimited
    site.workers(2)
    first = site.enqueue(1 * MIB)
    first.succeeds()
    limit(site, kind, first, 2)
    job, release = site.enqueue_held(12 * MIB, requests=2)
    reasons = site.api.get(f"/v1/jobs/{job.id}/why").json()["reasons"]
    [found] = [reason for reason in reasons if reason["code"] == f"{kind}_cap"]
    assert (found["data"]["most"], found["data"]["reason"]) == (2, "a shared uplink")
    assert len(site.store.held("data", job.key)) == 2
    limit(site, kind, first, 5)  # nothing has ended: the dispatcher hears of it
    assert len(site.store.held("data", job.key, 5)) == 5
    release()
    job.succeeds()
    assert at_once(site, job) == 5
    limit(site, kind, first, 3)
    site.store.control.add_rule("delay", op="data", delay_s=0.05)  # so that requests overlap wherever they may
    narrowed = site.enqueue(12 * MIB)
    narrowed.succeeds()
    assert at_once(site, narrowed) == 3
    limit(site, kind, first, None)
    free = site.enqueue(12 * MIB)
    free.succeeds()
    assert at_once(site, free) > 5
