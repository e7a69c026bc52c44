"""A worker with a wrong wall clock: it corrects its signatures, and no other decision uses that clock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.clocks import off_by
from tests.faults.network import SCALED
from tests.support.installation import MIB

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.processes import Worker

HOUR_S = 3600
TWO_HOURS = [2 * HOUR_S, -2 * HOUR_S]
PROBE_NOW = "UPDATE breaker SET probe_at = now()"


def skewed(site: Installation, seconds: int) -> Worker:
    """The only worker, with a shifted clock."""
    [worker] = site.workers(1, **SCALED, **off_by(seconds))
    site.know_links()  # the leader of the test before may have recorded its slow link meanwhile: one slice at a time
    return worker


@pytest.mark.parametrize("seconds", TWO_HOURS)
def test_uploads_succeed(site: Installation, seconds: int) -> None:
    skewed(site, seconds)
    jobs = [site.enqueue(2 * MIB), site.enqueue(1000), site.enqueue(2 * MIB, verify="file")]
    for job in jobs:
        result = job.succeeds()
        assert (job.row["attempts"], job.row["epoch"], result["slices"]["failed_attempts"]) == (0, 1, 0)
    assert not site.sql("SELECT * FROM breaker")
    refused = [entry for entry in site.store.requests() if entry["code"] == -59]
    assert bool(refused) == (seconds < 0)  # a signature of the past has expired; the refusal contains the store's time
    if refused:
        assert max(entry["number"] for entry in refused) < min(entry["number"] for entry in jobs[0].asked("finish"))


@pytest.mark.parametrize("seconds", TWO_HOURS)
def test_leases_and_heartbeats_go_by_the_databases_clock(site: Installation, seconds: int) -> None:
    worker = skewed(site, seconds)
    correct = site.start_worker(worker.environ | off_by(0))
    assert site.known(correct)
    key = site.fresh_key()
    release = site.store.hold("data", key)
    job = site.enqueue(2 * MIB, key)
    site.store.held("data", key, 4)
    query = "SELECT extract(epoch FROM lease_until - now())::float8 AS s FROM slice WHERE state = 'sending'"
    leases = [row["s"] for row in site.sql(query)]
    assert len(leases) == 4
    assert all(0 < lease_s < 30 for lease_s in leases)
    for _ in range(10):  # two seconds, the time after which a silent worker is dead
        all_sent_one = partial(later_than, site, heartbeats(site))
        site.until(all_sent_one, "heartbeats")
    release()
    assert job.succeeds()["slices"]["deaths"] == 0
    assert len(heartbeats(site)) == 2


def later_than(site: Installation, before: list[Any]) -> bool:
    return all(now > then for now, then in zip(heartbeats(site), before, strict=True))


def heartbeats(site: Installation) -> list[Any]:
    rows = site.sql("SELECT heartbeat_at FROM worker WHERE ended_at IS NULL ORDER BY id")
    return [row["heartbeat_at"] for row in rows]


def test_time_in_failure_goes_by_the_databases_clock(site: Installation) -> None:
    """With a clock two hours ahead, the second failure does not count as two hours of failures."""
    skewed(site, 2 * HOUR_S)
    key = site.fresh_key()
    site.store.control.add_rule("error", op="data", path=key, offset=0, count=3, status=503, code=-196)
    job = site.enqueue(1 * MIB, key, retry_for="30m")
    job.succeeds()
    assert job.row["attempts"] == 0


def test_a_clock_that_is_more_than_a_day_off_is_reported_and_its_job_waits(site: Installation) -> None:
    skewed(site, -26 * HOUR_S)
    job = site.enqueue(1 * MIB)
    site.until(lambda: job.row["error"], "the store's refusal")
    error = job.view["error"]
    assert error["code"] == "store_unusable"
    assert "clocks" in error["advice"]
    assert "-59" in error["message"]
    site.workers(1, **SCALED)
    site.sql(PROBE_NOW)
    job.succeeds()
    assert (job.row["attempts"], job.row["epoch"]) == (0, 1)
    assert not site.sql("SELECT * FROM breaker")
