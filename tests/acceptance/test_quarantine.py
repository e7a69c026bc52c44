"""A slice that kills every worker that takes it is put aside; everything else goes on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.job import Job


def test_a_poisonous_slice_is_quarantined_and_other_jobs_succeed(site: Installation) -> None:
    site.store.hold("data", "poison", offset=SLICE_BYTES)
    poisoned = site.enqueue(2 * MIB, "poison")
    others = [site.enqueue(2 * MIB)]
    site.workers(2)
    for death in range(1, 5):
        site.until(lambda: poisoned.slices[1:2] and poisoned.slices[1]["state"] == "sending", f"victim {death}")
        victim = site.holder(poisoned, 1)
        if death > 2:
            together = "SELECT count(*) AS n FROM slice WHERE state = 'sending' AND worker = %(worker)s"
            assert site.sql(together, worker=poisoned.slices[1]["worker"])[0]["n"] == 1
        victim.kill()
        site.workers(2)
        site.until(partial(_has_died, poisoned, death), f"death {death}")
        others.append(site.enqueue(1 * MIB))
    assert poisoned.fails() == "quarantined"
    assert "slice 1" in poisoned.view["error"]["message"]
    for other in others:
        other.succeeds()
        assert (other.row["result"]["slices"] or {}).get("failed_attempts", 0) == 0
    site.calm()
    poisoned.act("retry")
    poisoned.succeeds()


def _has_died(job: Job, times: int) -> bool:
    return job.state == "failed" or job.slices[1]["deaths"] == times
