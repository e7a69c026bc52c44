"""The broker holds nothing that cannot be made again: emptied, killed, frozen or absent, it only delays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job

FEW = {"SLICEWAY_WORKER_THREADS": "2"}


@pytest.fixture(autouse=True)
def _running_again(site: Installation) -> Iterator[None]:
    yield
    if not site.broker_answers():
        site.valkey.kill()
        site.valkey.start()


def upload_with_two_slices_held(site: Installation) -> Job:
    """Two slices wait for the store's answer, and two or more for a free thread, in the broker."""
    site.workers(1, **FEW)
    key = site.fresh_key()
    site.store.hold("data", key, count=2)
    job = site.enqueue(4 * MIB, key)
    site.store.held("data", job.key, 2)
    site.until(lambda: sum(row["state"] == "dispatched" for row in job.slices) >= 2, "two slices in the broker")
    return job


def test_emptied_in_the_middle_of_an_upload(site: Installation) -> None:
    job = upload_with_two_slices_held(site)
    with site.broker() as broker:
        broker.flushall()
    site.store.control.release()
    job.succeeds()
    assert job.sent_twice_bytes() == 0


def test_emptied_again_and_again(site: Installation) -> None:
    site.workers(2)
    jobs = [site.enqueue(2 * MIB) for _ in range(4)]
    with site.broker() as broker:
        for job in jobs:
            site.until(job.advanced, "progress")
            broker.flushall()
    for job in jobs:
        job.succeeds()
        assert job.sent_twice_bytes() == 0


def test_killed_and_restarted_in_the_middle_of_an_upload(site: Installation) -> None:
    job = upload_with_two_slices_held(site)
    site.valkey.kill()
    site.store.control.release()
    site.until(lambda: job.row["bytes_done"] >= 2 * SLICE_BYTES, "checkpoints without a broker")
    site.valkey.start()
    result = job.succeeds()
    assert job.sent_twice_bytes() == 0
    assert result["slices"]["deaths"] == 0


def test_frozen_for_a_while(site: Installation) -> None:
    job = upload_with_two_slices_held(site)
    site.valkey.pause()
    site.store.control.release()
    site.until(lambda: job.row["bytes_done"] >= 2 * SLICE_BYTES, "checkpoints without a broker")
    site.valkey.resume()
    result = job.succeeds()
    assert job.sent_twice_bytes() == 0
    assert result["slices"]["deaths"] == 0


def test_a_job_enqueued_without_a_broker_runs_when_there_is_one(site: Installation) -> None:
    site.workers(1, **FEW)
    site.valkey.kill()
    job = site.enqueue(1 * MIB)
    small = site.enqueue(1000)
    assert job.state == "queued"
    site.valkey.start()
    job.succeeds()
    small.succeeds()


def test_a_worker_started_without_a_broker_works_when_there_is_one(site: Installation) -> None:
    site.workers(0)
    job = site.enqueue(1 * MIB)
    site.valkey.kill()
    worker = site.start_worker(site.environ | FEW)
    assert site.known(worker)
    site.until(lambda: "onnect" in worker.text(), "a try to connect")
    site.valkey.start()
    job.succeeds()
