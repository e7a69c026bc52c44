"""Bytes are not sent again before the store was asked whether it has them; small files have the time that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation

#: A slice has 3 s and the time that it takes at the low speed, 8 s.
SCALED = {"SLICEWAY_TIME_SCALE": "0.1", "SLICEWAY_DEAD_AFTER_S": "100", "SLICEWAY_HEARTBEAT_S": "5"}
SHORT = SCALED | {"SLICEWAY_TIME_SCALE": "0.02", "SLICEWAY_DEAD_AFTER_S": "500"}


@pytest.mark.parametrize(("when", "times"), [("before", 2), ("after", 1)])
def test_a_slice_whose_answer_was_cut_off_is_looked_up(site: Installation, when: str, times: int) -> None:
    site.workers(1)
    key = site.fresh_key()
    site.store.control.add_rule("cut", op="data", path=key, offset=SLICE_BYTES, count=1, when=when)
    job = site.enqueue(2 * MIB, key)
    job.succeeds()
    assert len(job.asked("data", offset=SLICE_BYTES)) == times
    assert job.sent_twice_bytes() == (times - 1) * SLICE_BYTES
    assert job.row["attempts"] == 0


def test_a_slice_that_was_not_answered_until_its_deadline_is_looked_up(site: Installation) -> None:
    site.workers(1, **SCALED)
    job, let_go = site.enqueue_held(2 * MIB, offset=SLICE_BYTES, when="after")
    site.until(lambda: "slice_deferred" in job.kinds, "the answer given up")  # the error is gone with the next attempt
    let_go()
    result = job.succeeds()
    assert len(job.asked("data", offset=SLICE_BYTES)) == 1
    assert job.sent_twice_bytes() == 0
    assert result["slices"]["failed_attempts"] == 0


def test_a_list_that_fails_is_asked_again_before_the_slice_is_sent(site: Installation) -> None:
    site.workers(1)
    key = site.fresh_key()
    site.store.control.add_rule("cut", op="data", path=key, offset=SLICE_BYTES, count=1, when="after")
    site.store.control.add_rule("error", op="list", path=key, count=2, status=503, code=-196)
    job = site.enqueue(2 * MIB, key)
    job.succeeds()
    assert job.sent_twice_bytes() == 0


def with_main(site: Installation, name: str, **timeouts: float) -> dict[str, str]:
    """The settings of a worker with a stores file of its own; its `twin` may be as slow as one byte per second."""
    stores = site.stores()
    stores["main"] |= timeouts
    stores["twin"]["low_speed_bytes_per_s"] = 1
    return {**SHORT, "SLICEWAY_STORES_FILE": site.stores_file(name, stores)}


def test_a_slice_has_the_deadline_of_its_own_store(site: Installation) -> None:
    """That is 2.6 s here, and six days at the other store."""
    site.workers(1, **with_main(site, "own-store", low_speed_bytes_per_s=SLICE_BYTES // 2))
    key = site.fresh_key()
    release = site.store.hold("data", key, offset=SLICE_BYTES, count=1, when="after")
    job = site.enqueue(2 * MIB, key)
    job.succeeds()
    release()
    assert job.sent_twice_bytes() == 0


def test_a_list_before_a_slice_is_waited_for_as_long_as_its_store_says(site: Installation) -> None:
    """A slice has 2.6 s here if its store says nothing else."""
    timeouts = {"low_speed_bytes_per_s": SLICE_BYTES // 2, "answer_timeout_s": 1000}
    site.workers(1, **with_main(site, "slow-list", **timeouts))
    key = site.fresh_key()
    site.store.control.add_rule("cut", op="data", path=key, offset=SLICE_BYTES, count=1, when="after")
    site.store.control.add_rule("delay", op="list", path=key, delay_s=4, count=1)
    job = site.enqueue(2 * MIB, key)
    job.succeeds()
    assert job.sent_twice_bytes() == 0
    assert all(entry["state"] == "answered" for entry in job.asked("list"))


def test_a_small_file_on_a_slow_link_has_the_time_of_a_slice(site: Installation) -> None:
    """An init has 2.4 s here, and the file takes 5 s; as a slice it would have 0.6 s and 8 s."""
    site.store.control.change(rate_bytes_per_s=100_000)
    site.workers(1, **SHORT)
    job = site.enqueue(SLICE_BYTES)
    job.succeeds()
    assert len(job.asked("upload")) == 1
    assert job.row["attempts"] == 0
