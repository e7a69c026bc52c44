"""Files of every kind become objects, byte for byte."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import httpx
import pytest

from tests.support.installation import MIB
from tests.support.job import Job, JobSpec
from tests.support.store import SLICE_BYTES
from worker.jobs.task_names import QUEUE

if TYPE_CHECKING:
    from tests.support.installation import Installation


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)


def test_a_file_of_many_slices_is_sent_once_and_finished_once(site: Installation) -> None:
    job = site.enqueue(4 * MIB + 4321)
    result = job.succeeds()
    assert result["proof"] == "mark"
    assert job.sent_twice_bytes() == 0
    assert job.kinds == ["enqueued", "init_claimed", "session_opened", "slices_done", "proven"]
    assert len(job.asked("data")) == 9 == result["slices"]["slices"]
    assert max(entry["size"] for entry in job.asked("data")) == SLICE_BYTES


@pytest.mark.parametrize("size_bytes", [0, 1, SLICE_BYTES])
def test_a_file_of_one_slice_is_one_task_and_one_request(site: Installation, size_bytes: int) -> None:
    job = site.enqueue(size_bytes)
    assert job.succeeds()["proof"] == "digest"
    assert job.kinds == ["enqueued", "init_claimed", "stored_at_once"]
    assert [len(job.asked(op)) for op in ("upload", "init", "data", "finish")] == [1, 0, 0, 0]
    assert job.row["token"] == 1


def test_a_tiny_file_goes_in_slices_if_the_request_has_a_slice_size(site: Installation) -> None:
    job = site.enqueue(1, slice_size=SLICE_BYTES)
    job.succeeds()
    assert len(job.asked("finish")) == 1


@pytest.mark.parametrize("verify", ["auto", "size", "file"])
def test_an_empty_file_goes_whole_whatever_the_request_says(site: Installation, verify: str) -> None:
    """Nothing says what a session without slices is, and our own store takes no digests of none."""
    job = site.enqueue(0, verify=verify, slice_size=MIB)
    assert job.succeeds()["proof"] == "digest"
    assert [len(job.asked(op)) for op in ("upload", "init")] == [1, 0]


def test_a_slice_size_above_those_that_can_be_asked_for_is_obeyed(site: Installation) -> None:
    site.store.control.add_rule("slice_size", op="init", path="large", slice_size=5 * MIB)
    job = site.enqueue(5 * MIB + 1, "large")
    job.succeeds()
    assert sorted(entry["size"] for entry in job.asked("data")) == [1, 5 * MIB]


@pytest.mark.parametrize("verify", ["auto", "file"])
def test_a_store_that_leaves_out_of_its_answers_what_it_may_is_served(site: Installation, verify: str) -> None:
    site.store.control.change(bare_answers=True)
    try:
        job = site.enqueue(3 * MIB + 1, verify=verify)
        job.succeeds()
    finally:
        site.store.control.change(bare_answers=False)
    assert job.sent_twice_bytes() == 0
    assert [len(job.asked(op)) for op in ("init", "finish")] == [1, 1]


def test_a_folder_in_the_place_of_the_object_is_reported(site: Installation) -> None:
    site.store.plant_object("folder/object", b"of another client")
    job = site.enqueue(MIB, "folder")
    assert job.fails() == "folder_exists"
    assert job.row["error"]["advice"].startswith("Choose another key")


def test_the_jobs_of_a_batch_are_stored_in_its_order(site: Installation) -> None:
    site.workers(1, SLICEWAY_WORKER_THREADS="1")
    specs = [JobSpec(f"{number:02}", f"{number:02}") for number in range(20, 0, -1)]
    contents = [site.file(spec.path, 1000) for spec in specs]
    answer = site.api.post("/v1/jobs/batch", json={"jobs": [spec.document for spec in specs]}).raise_for_status()
    for spec, content, result in zip(specs, contents, answer.json()["results"], strict=True):
        site.note(Job(site, result["job"]["id"], spec.key, content, site.media / spec.path))
    site.jobs[-1].succeeds()
    assert [entry["path"] for entry in site.store.requests(op="upload")] == [spec.key for spec in specs]


def test_slices_go_in_order_where_the_store_insists(site: Installation) -> None:
    site.store.control.add_rule("serial", op="init", path="serial")
    job = site.enqueue(3 * MIB, "serial")
    job.succeeds()
    offsets = [entry["offset"] for entry in job.asked("data")]
    assert offsets == sorted(offsets)
    assert job.sent_twice_bytes() == 0


def test_an_ordered_upload_goes_on_in_order_after_a_death(site: Installation) -> None:
    site.store.control.add_rule("serial", op="init", path="serial-death")
    site.store.hold("data", "serial-death", offset=2 * SLICE_BYTES, count=1)
    job = site.enqueue(3 * MIB, "serial-death")
    site.store.held("data", job.key)
    assert job.done() == 2
    site.holder(job, 2).kill()
    job.succeeds()
    accepted = [entry["offset"] for entry in job.asked("data") if entry["effect"] == 0]
    assert accepted == sorted(accepted)


def test_the_stores_slice_size_is_obeyed(site: Installation) -> None:
    site.store.control.add_rule("slice_size", op="init", path="sized", slice_size=MIB)
    job = site.enqueue(3 * MIB + 1, "sized")
    job.succeeds()
    assert [entry["size"] for entry in sorted(job.asked("data"), key=lambda e: e["offset"])] == [MIB, MIB, MIB, 1]


def test_a_digest_of_the_whole_file_is_taken_and_checked_by_the_store(site: Installation) -> None:
    job = site.enqueue(3 * MIB + 7, verify="file")
    result = job.succeeds()
    assert (result["verified"], result["proof"]) == ("file", "digest")
    assert {entry["size"] for entry in job.asked("data")} == {MIB, 7}


def test_bytes_damaged_on_the_way_never_become_an_object(site: Installation) -> None:
    site.store.control.add_rule("corrupt", op="data", path="damaged", offset=MIB, count=1)
    job = site.enqueue(3 * MIB, "damaged", verify="file")
    assert job.succeeds()["proof"] == "digest"
    [lost] = [event for event in job.events if event["kind"] == "session_lost"]
    assert lost["cause"]["code"] == "digest_mismatch"
    assert site.store.object_at("damaged") == job.content


def test_bytes_that_the_store_has_already_are_not_sent(site: Installation) -> None:
    first = site.enqueue(3 * MIB, verify="file")
    first.succeeds()
    second = site.enqueue(3 * MIB, content=first.content, verify="file")
    assert second.succeeds()["proof"] == "digest"
    assert not second.asked("data")
    assert second.kinds == ["enqueued", "init_claimed", "stored_at_once"]


def test_the_same_file_to_the_same_key_is_found_there(site: Installation) -> None:
    first = site.enqueue(2 * MIB, "twice", verify="file")
    first.succeeds()
    again = site.enqueue(2 * MIB, "twice", content=first.content, verify="file")
    again.succeeds()
    assert len(again.asked("finish")) == 1


def test_two_profiles_may_lead_to_one_bucket(site: Installation) -> None:
    jobs = [site.enqueue(2 * MIB, store=store) for store in ("main", "twin", "main", "twin")]
    for job in jobs:
        job.succeeds()


def test_the_api_holds_its_answer_until_the_job_has_ended(site: Installation) -> None:
    job = site.enqueue(2 * MIB)
    view = site.api.get(f"/v1/jobs/{job.id}", params={"wait": "30s"}, timeout=40).json()
    assert view["state"] == "succeeded"
    assert view["progress"]["percent"] == 100.0


class Gauge(threading.Thread):
    """Watches how long the broker's queue is."""

    def __init__(self, site: Installation) -> None:
        super().__init__(daemon=True)
        self._site, self._over = site, threading.Event()
        self.most = 0

    def run(self) -> None:
        """Read until the end."""
        with self._site.broker() as broker:
            while not self._over.wait(0.005):
                self.most = max(self.most, int(str(broker.llen(QUEUE))))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(120)


def test_many_small_jobs_drain_through_a_short_queue(site: Installation) -> None:
    count = 300
    contents = {f"many/{number:03}": site.file(f"many/{number:03}", 100 + number) for number in range(count)}
    items = [{"source": {"kind": "file", "root": "media", "path": k}, "store": "main", "key": k} for k in contents]
    left = "SELECT count(*) AS n FROM job WHERE key LIKE 'many/%' AND state <> 'succeeded'"
    with Gauge(site) as gauge:
        answer = site.api.post("/v1/jobs/batch", json={"jobs": items})
        assert answer.status_code == httpx.codes.OK
        site.until(lambda: site.sql(left)[0]["n"] == 0, "all of them done")
    assert 0 < gauge.most <= 100
    for given in answer.json()["results"]:
        key = given["job"]["key"]
        site.note(Job(site, given["job"]["id"], key, contents[key], site.media / key))
    assert len(site.store.requests(op="upload")) == count
    jobs, site.jobs = site.jobs, site.jobs[::50]  # checking some of them is enough
    assert len(jobs) == count
