"""Files of every kind become objects, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.installation import MIB, SLICE_BYTES

if TYPE_CHECKING:
    from tests.acceptance.installation import Installation


def test_a_file_of_many_slices_becomes_an_object_and_nothing_is_sent_twice(site: Installation) -> None:
    site.workers(2)
    job = site.enqueue(4 * MIB + 4321)
    result = job.succeeds()
    assert result["proof"] == "mark"
    assert job.sent_twice_bytes() == 0
    assert job.kinds == ["enqueued", "init_claimed", "session_opened", "slices_done", "proven"]
    assert len(job.asked("data")) == 9 == result["slices"]["slices"]
    assert SLICE_BYTES == max(entry["size"] for entry in job.asked("data"))
