"""Progress is true: it moves while bytes are on their way over a slow link, never falls, and ends at the end."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.installation import MIB, Installation
from tests.support.relay import KIB, Link, Relay
from tests.support.store import SLICE_BYTES
from worker.jobs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fixtures import Ground, Servers
    from tests.support.job import Job

Row = dict[str, Any]
BYTES_PER_S = 1_000_000


class SlowSite(Installation):
    """An installation whose store is behind a slow link with small buffers: what they take is acknowledged, too."""

    relay: Relay | None = None

    @property
    def store_url(self) -> str:
        """The link's near end."""
        if self.relay is None:
            self.relay = Relay(int(self.store.url.rpartition(":")[2]), Link(BYTES_PER_S, 32 * KIB))
        return f"http://127.0.0.1:{self.relay.port}"

    def slow(self, bytes_per_s: int) -> None:
        """Let the link carry so much."""
        assert self.relay is not None
        self.relay.link = Link(bytes_per_s, 32 * KIB)

    def close(self) -> None:
        """Stop everything, the link last."""
        super().close()
        if self.relay is not None:
            self.relay.close()


@pytest.fixture(scope="module")
def slow_ground(servers: Servers) -> Iterator[Ground[SlowSite]]:
    yield from servers.ground(SlowSite)


@pytest.fixture
def site(slow_ground: Ground[SlowSite]) -> Iterator[SlowSite]:
    yield from slow_ground.lend()


def followed(site: SlowSite, job: Job) -> list[Row]:
    """Read a job until it has ended; returns all views."""
    views: list[Row] = []

    def ended() -> bool:
        views.append(job.view)
        return views[-1]["state"] in FINAL

    site.until(ended, "the upload has ended")
    return views


def percents(views: list[Row]) -> list[float]:
    return [view["progress"]["percent"] for view in views if view["progress"]["percent"] is not None]


def acknowledged(views: list[Row]) -> list[int]:
    return [view["progress"]["bytes_done"] + view["progress"]["bytes_in_flight"] for view in views]


def never_fell(views: list[Row]) -> None:
    assert all(before <= after for before, after in pairwise(percents(views)))
    assert all(before <= after for before, after in pairwise(acknowledged(views)))
    assert all(view["progress"]["percent"] != 100.0 for view in views[:-1])
    assert views[-1]["progress"]["percent"] == 100.0
    assert views[-1]["progress"]["bytes_in_flight"] == 0


def test_the_bar_of_a_file_of_slices_moves_with_its_bytes(site: SlowSite) -> None:
    site.workers(1)
    site.slow(BYTES_PER_S)
    size = 6 * MIB
    job = site.enqueue(size)
    views = followed(site, job)
    never_fell(views)
    within = {count for count in acknowledged(views) if count % SLICE_BYTES}
    assert len(within) >= 5, sorted(within)  # between checkpoints, too
    with_eta = [view for view in views if view["eta_s"] is not None]
    assert 0 < max(view["throughput_bytes_per_s"] for view in with_eta) <= 1.5 * BYTES_PER_S
    assert with_eta[-1]["eta_s"] <= 10 * size / BYTES_PER_S  # all shares two cores; it once said 170 s
    job.succeeds()


def test_the_bar_of_a_file_sent_in_one_request_moves(site: SlowSite) -> None:
    site.workers(1)
    site.slow(BYTES_PER_S // 10)
    job = site.enqueue(SLICE_BYTES)
    views = followed(site, job)
    never_fell(views)
    assert len({percent for percent in percents(views) if 0 < percent < 100}) >= 5
    assert any(view["throughput_bytes_per_s"] for view in views)
    assert job.kinds == ["enqueued", "init_claimed", "stored_at_once"]
    job.succeeds()


def test_what_a_killed_worker_had_sent_is_shown_until_it_is_sent_again(site: SlowSite) -> None:
    site.workers(2)
    site.slow(BYTES_PER_S // 4)
    job = site.enqueue(2 * MIB)
    views: list[Row] = []

    def partly() -> bool:
        views.append(job.view)
        return views[-1]["progress"]["bytes_in_flight"] > SLICE_BYTES // 4

    site.until(partly, "part of a slice is acknowledged")
    number = next(row["number"] for row in job.slices if row["state"] == "sending")
    site.holder(job, number).kill()
    site.slow(BYTES_PER_S)
    views += followed(site, job)
    never_fell(views)
    job.succeeds()
