"""Slow links and slow stores: everything ends, nothing is sent twice, and other stores do not wait behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.api import api_client, create_api_key
from tests.support.installation import MIB, Installation
from tests.support.job import JobSpec
from tests.support.store import StoreServer, profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.support.fixtures import Servers
    from tests.support.stores_file import Table

SMALL = 40


class TwoStores(Installation):
    """An installation with a second store, `slow`, of which nothing is known."""

    def _environ(self) -> dict[str, str]:
        folder = self.folder / "slow"
        folder.mkdir()
        self.slow = StoreServer(folder)
        return super()._environ()

    def stores(self) -> dict[str, Table]:
        """The profiles of the stores file, by name."""
        return super().stores() | {"slow": profile(self.slow.url)}

    def upload_slowly(self, size_bytes: int) -> str:
        """Enqueue a file to the slow store; returns the job's id."""
        path = self.fresh_key()
        with (self.media / path).open("wb") as file:
            file.truncate(size_bytes)
        document = JobSpec(path, path, {"store": "slow"}).document
        return str(self.api.post("/v1/jobs", json=document).raise_for_status().json()["id"])

    def view(self, job: str) -> dict[str, Any]:
        """What the API says of a job."""
        return dict(self.api.get(f"/v1/jobs/{job}").raise_for_status().json())

    def another_tenant(self) -> httpx.Client:
        """A client of another tenant."""
        return api_client(str(self.api.base_url), create_api_key(self.database.url, "other"), timeout_s=120)

    def sending(self, job: str) -> int:
        """How many slices of a job are out."""
        query = "SELECT count(*) AS n FROM slice WHERE job_id = %(job)s AND state IN ('dispatched', 'sending')"
        return int(self.sql(query, job=job)[0]["n"])

    def begin(self) -> None:
        """Forget what the test before has left behind."""
        super().begin()
        self.slow.forget()

    def calm(self) -> None:
        """Undo the faults of the test."""
        super().calm()
        self.slow.calm()

    def close(self) -> None:
        """Stop everything."""
        super().close()
        self.slow.stop()


@pytest.fixture
def site(servers: Servers) -> Iterator[TwoStores]:
    for ground in servers.ground(TwoStores):
        yield from ground.lend()


def test_a_link_that_takes_long_for_all_slots_carries_each_slice_once(site: TwoStores) -> None:
    """Sixteen slices at once would each take longer than a slice may: 6 s and its time at the low speed."""
    site.slow.control.change(rate_bytes_per_s=2_000_000)
    site.workers(2, SLICEWAY_TIME_SCALE="0.1", SLICEWAY_DEAD_AFTER_S="100", SLICEWAY_HEARTBEAT_S="5")
    job = site.upload_slowly(16 * 3 * MIB)
    site.until(lambda: site.view(job)["state"] == "succeeded", "the slow job succeeds")
    slices = site.slow.requests(op="data")
    assert len(slices) == 16
    assert sum(entry["size"] or 0 for entry in slices) == 16 * 3 * MIB
    view = site.view(job)
    assert view["result"]["slices"] == {"slices": 16, "sends": 16, "failed_attempts": 0, "deaths": 0}


@pytest.mark.parametrize("slow", ["link", "answers"])
def test_a_slow_store_does_not_hold_up_another(site: TwoStores, slow: str) -> None:
    """40 small files of another tenant end while the large one still goes up."""
    if slow == "link":
        site.slow.control.change(rate_bytes_per_s=1_000_000)
    else:
        site.slow.control.add_rule("delay", op="data", delay_s=3.0)
    (worker,) = site.workers(1)
    large = site.upload_slowly(300 * MIB)
    known = "SELECT store FROM store_link WHERE store = 'slow' AND answer_s > 2"
    site.until(lambda: site.sql(known), "the store counts as slow")
    if slow == "answers":
        site.until(lambda: site.sending(large) >= 4, "it gets what it may have")
    paths = [site.fresh_key() for _ in range(SMALL)]
    for path in paths:
        site.file(path, 1000)
    with site.another_tenant() as other:
        jobs = [other.post("/v1/jobs", json=JobSpec(path, path).document).raise_for_status().json() for path in paths]

        def ended() -> bool:
            return all(other.get(job["urls"]["self"]).json()["state"] == "succeeded" for job in jobs)

        site.until(ended, "the small ones succeed")
    [slots] = site.sql("SELECT slots FROM worker WHERE ended_at IS NULL")
    assert site.view(large)["state"] == "uploading"
    assert site.sending(large) <= slots["slots"] // 2
    worker.stop()
