"""The database goes away in the middle of an upload and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from tests.support.installation import MIB
from tests.support.job import JobSpec
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation

OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()"""

#: What a crash leaves of a claim whose commit had not reached the disk.
LOSE_CLAIMS = """SET session_replication_role = replica;
                 UPDATE slice SET state = 'dispatched', worker = NULL, lease_until = NULL WHERE state = 'sending'"""


@pytest.fixture(autouse=True)
def _running_again(site: Installation) -> Iterator[None]:
    yield
    if site.postgres.poll() is not None:
        site.postgres.start()


def restart(site: Installation) -> None:
    """Stop the server as a crash would, and start it again."""
    site.postgres.stop("immediate")
    site.postgres.start()


def test_every_connection_cut_in_the_middle_of_an_upload(site: Installation) -> None:
    site.workers(2)
    key = site.fresh_key()
    site.store.hold("data", key, count=3)
    job = site.enqueue(6 * MIB, key)
    released: set[int] = set()
    while len(released) < 3:
        held = {request["number"] for request in site.store.held("data", job.key)} - released
        if held:  # one that was just released may still be listed
            site.sql(OTHERS)
            site.store.control.release(min(held))
            released.add(min(held))
    result = job.succeeds()
    assert job.sent_twice_bytes() == 0
    assert result["slices"]["deaths"] == 0


def test_crashed_and_restarted_in_the_middle_of_an_upload(site: Installation) -> None:
    site.workers(2, SLICEWAY_WORKER_THREADS="2")
    key = site.fresh_key()
    site.store.hold("data", key, offset=4 * SLICE_BYTES, count=1)
    job = site.enqueue(6 * MIB, key)
    site.store.held("data", job.key)
    site.postgres.stop("immediate")
    site.store.control.release()
    site.postgres.start()
    result = job.succeeds()
    # what was in flight, and the checkpoints of the last 0.6 s
    assert job.sent_twice_bytes() <= (4 + 4) * SLICE_BYTES
    assert result["slices"]["deaths"] == 0


def test_a_claim_lost_with_the_database_does_not_lose_the_slice(site: Installation) -> None:
    site.workers(1)
    key = site.fresh_key()
    site.store.hold("data", key, offset=SLICE_BYTES, count=1)
    job = site.enqueue(1 * MIB, key)
    site.store.held("data", job.key)
    site.until(lambda: job.slices[0]["state"] == "done", "the other slice")
    site.sql(LOSE_CLAIMS)
    restart(site)
    site.until(lambda: "another copy of the message" in site.logs()[0].read_text(), "the message again")
    site.store.control.release()
    job.succeeds()
    assert job.sent_twice_bytes() <= SLICE_BYTES


def test_a_job_that_was_accepted_survives_the_crash_that_follows(site: Installation) -> None:
    site.workers(1)
    job = site.enqueue(1000)
    restart(site)
    other = site.enqueue(1000)  # the first request after the restart is accepted
    job.succeeds()
    other.succeeds()


def test_without_a_database_the_api_accepts_nothing_and_recovers_by_itself(site: Installation) -> None:
    site.workers(1)
    content = site.file("without-database", 1000)
    spec = JobSpec("without-database", "without-database")
    site.postgres.stop("fast")
    with pytest.raises(psycopg.OperationalError):
        site.sql("SELECT 1")
    answer = site.api.post("/v1/jobs", json=spec.document)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    site.postgres.start()
    site.submit(spec, content).succeeds()
