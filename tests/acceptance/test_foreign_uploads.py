"""Half-done uploads at the key: ours go on, those of other clients are never adopted, and no object changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tests.support.installation import MIB
from tests.support.store import APPID, BUCKET, SECRET_ID, SECRET_KEY, SLICE_BYTES
from worker.config.profiles import StoreProfile
from worker.stores.base import Listing
from worker.stores.registry import open_store

if TYPE_CHECKING:
    from tests.support.installation import Installation

SIZE = 4 * MIB


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)


class NoDeadline:
    """A guard that lets everything go on."""

    def check(self) -> None:
        """Return."""

    def remaining_s(self) -> float:
        """Return long enough."""
        return 30.0

    def acknowledged(self, size_bytes: int) -> None:
        """Ignore how far the request is."""


def send_as_a_stranger(site: Installation, key: str, number: int, data: bytes) -> None:
    """Send one more slice of the unfinished upload at the key."""
    profile = StoreProfile(
        name="foreign", protocol="cos-json", endpoint=site.store.url, appid=APPID, bucket=BUCKET,
        secret_id=SecretStr(SECRET_ID), secret_key=SecretStr(SECRET_KEY),
    )  # fmt: skip
    store = open_store(profile)
    listing = store.list_slices(key, None, NoDeadline())
    assert isinstance(listing, Listing)
    store.put_slice(key, listing.handle, number * SLICE_BYTES, memoryview(data), NoDeadline())
    store.close()


def test_a_retried_job_goes_on_where_it_was(site: Installation) -> None:
    site.store.control.add_rule("error", op="data", path="own", offset=5 * SLICE_BYTES, status=400, code=-5999, count=1)
    job = site.enqueue(SIZE, "own")
    job.fails()
    site.until(lambda: not any(row["state"] == "sending" for row in job.slices), "the last slices in flight")
    done = job.done()
    session = job.row["session"]
    seen = len(job.asked("data"))
    job.act("retry")
    job.succeeds()
    assert job.row["epoch"] == 1
    assert len(job.asked("init")) == 1
    assert len(job.asked("data")) - seen == 8 - done
    assert {entry["session"] for entry in job.asked("data")} == {session["session"]}
    assert job.sent_twice_bytes() == SLICE_BYTES


def test_an_idle_foreign_upload_is_discarded(site: Installation) -> None:
    site.store.plant_upload("idle", SIZE, b"s" * SLICE_BYTES)
    job = site.enqueue(SIZE, "idle")
    job.succeeds()
    assert "foreign_session_discarded" in job.kinds
    assert job.row["epoch"] == 1


def test_a_growing_foreign_upload_is_left_alone(site: Installation) -> None:
    session = site.store.plant_upload("growing", SIZE, b"s" * SLICE_BYTES)
    job = site.enqueue(SIZE, "growing")
    site.until(lambda: job.asked("list"), "the first list")
    send_as_a_stranger(site, "growing", 1, b"t" * SLICE_BYTES)
    assert job.fails() == "upload_in_progress"
    assert site.store.unfinished()["growing"]["session"] == session
    assert not job.asked("delete")


def test_a_foreign_upload_over_an_object_is_left_alone_with_it(site: Installation) -> None:
    site.store.plant_object("over", b"o" * SIZE)
    session = site.store.plant_upload("over", SIZE, b"s" * SLICE_BYTES, insert_only=False)
    job = site.enqueue(SIZE, "over", overwrite=True)
    assert job.fails() == "upload_in_progress"
    assert site.store.unfinished()["over"]["session"] == session
    assert not job.asked("delete")


def test_a_file_of_one_request_discards_an_idle_foreign_upload_too(site: Installation) -> None:
    site.store.plant_upload("small", SIZE, b"s" * SLICE_BYTES)
    site.enqueue(1000, "small").succeeds()


def test_another_jobs_half_of_the_same_file_is_gone_on_with(site: Installation) -> None:
    content = site.file("half", SIZE)
    site.store.control.add_rule("error", op="data", path="half", offset=2 * MIB, status=400, code=-5999)
    first = site.enqueue(SIZE, "half", content=content, verify="file")
    first.fails()
    site.until(lambda: not any(row["state"] == "sending" for row in first.slices), "the last slices in flight")
    site.store.control.clear_rules()
    done, seen = first.done(), len(first.asked("data"))
    second = site.enqueue(SIZE, "half", content=content, verify="file")
    assert second.succeeds()["proof"] == "digest"
    assert len(second.asked("data")) - seen == 4 - done
