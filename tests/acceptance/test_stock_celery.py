"""`SLICEWAY_CELERY=stock`: the promises hold with Celery's strategy, threads, messages, and kombu's transport."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.command import findings
from tests.support.installation import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import Installation

STOCK = {"SLICEWAY_CELERY": "stock"}


def test_an_upload_goes_slice_by_slice_with_the_stock_parts(site: Installation) -> None:
    [worker] = site.workers(1, **STOCK)
    job = site.enqueue(4 * MIB + 4321)
    job.succeeds()
    assert job.sent_twice_bytes() == 0
    assert job.kinds == ["enqueued", "init_claimed", "session_opened", "slices_done", "proven"]
    assert 'worker.stock_celery why="SLICEWAY_CELERY is stock"' in worker.text()
    with site.broker() as broker:
        site.until(lambda: broker.hlen("unacked") == 0, "each message acknowledged")


def test_after_sigkill_the_slices_of_a_stock_worker_run_in_another(site: Installation) -> None:
    site.workers(2, **STOCK)
    job, release = site.enqueue_held(4 * MIB, offset=0)
    site.holder(job, 0).kill()
    site.until(lambda: "worker_lost" in job.kinds, "its claims freed")
    release()
    job.succeeds()


@pytest.mark.parametrize("celery", ["auto", "stock"])
def test_a_worker_of_either_kind_takes_over_from_the_other(site: Installation, celery: str) -> None:
    other = {"auto": "stock", "stock": "auto"}[celery]
    [first] = site.workers(1, SLICEWAY_CELERY=other)
    job, release = site.enqueue_held(4 * MIB, offset=0)
    second = site.start_worker(site.environ | first.environ | {"SLICEWAY_CELERY": celery})
    assert site.known(second), second.text()
    first.kill()
    site.until(lambda: "worker_lost" in job.kinds, "its claims freed")
    release()
    job.succeeds()


@pytest.mark.parametrize("celery", ["auto", "stock"])
def test_a_failure_for_good_is_one_line_of_the_log_without_a_traceback(site: Installation, celery: str) -> None:
    [worker] = site.workers(1, SLICEWAY_CELERY=celery)
    site.store.control.add_rule("error", op="init", path="refused", status=400, code=-5999)
    job = site.enqueue(4 * MIB, "refused")
    job.fails()
    site.until(lambda: "task.failed" in worker.text(), "the line of the failure")
    lines = [line for line in worker.text().splitlines() if "-5999" in line or "task.failed" in line]
    assert len(lines) == 1, lines
    assert "Traceback" not in worker.text()


@pytest.mark.parametrize("celery", ["auto", "stock"])
def test_a_worker_stops_at_once_and_gives_back_what_it_holds(site: Installation, celery: str) -> None:
    [worker] = site.workers(1, SLICEWAY_CELERY=celery)
    job, release = site.enqueue_held(4 * MIB, offset=0)
    worker.stop()
    assert {row["state"] for row in job.slices} <= {"pending", "dispatched", "done"}
    assert all(row["deaths"] == 0 for row in job.slices)
    release()
    site.workers(1, SLICEWAY_CELERY=celery)
    job.succeeds()


@pytest.mark.parametrize(("name", "version"), [("kombu", "5.99.0"), ("celery", "6.0.0rc1")])
def test_an_unknown_version_takes_the_stock_parts_and_says_so(
    site: Installation, tmp_path: Path, name: str, version: str
) -> None:
    """The newer version is a description of a distribution that stands before the real one in the path."""
    described = tmp_path / f"{name}-{version}.dist-info" / "METADATA"
    described.parent.mkdir()
    described.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    [worker] = site.workers(1, PYTHONPATH=path)
    site.enqueue(2 * MIB).succeeds()
    assert f'worker.stock_celery why="{name} is {version}, and the short path was written for ' in worker.text()
    found = findings(worker.environ)["celery"]
    assert found["level"] == "note"
    assert f"{name} is {version}" in found["text"]
