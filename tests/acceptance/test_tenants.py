"""Jobs whose tenant is taken off a list: not begun, not sent, not finished; and nothing else waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.job import Job
    from tests.support.stores_file import Table

SCALE = 0.05
#: The interval at which the lists are read, 30 s, is shorter; the times by which a death is noticed are as usual.
SHORT = {
    "SLICEWAY_TIME_SCALE": str(SCALE),
    "SLICEWAY_HEARTBEAT_S": str(0.5 / SCALE),
    "SLICEWAY_DEAD_AFTER_S": str(10 / SCALE),
    "SLICEWAY_LEAD_S": str(2 / SCALE),
}
CHANGES: dict[str, Table] = {
    "store": {"tenants": ["umbrella"]},
    "root": {"tenants": ["umbrella"]},
    "prefix": {"prefix": "{tenant}/"},
}


def without_acme(site: Installation, change: str) -> dict[str, str]:
    """Settings of workers whose stores file has `acme`, the tenant of all jobs here, off a list."""
    stores, roots = site.stores(), site.roots()
    changed = roots["media"] if change == "root" else stores["main"]
    changed |= CHANGES[change]
    return SHORT | {"SLICEWAY_STORES_FILE": site.stores_file(f"stores-{change}", stores, roots)}


def waits(job: Job) -> bool:
    """Whether a worker has said why it does not go on."""
    parts = [job.row, *job.slices]
    return any((row["error"] or {}).get("code") == "tenant_not_allowed" for row in parts)


@pytest.mark.parametrize("change", CHANGES)
def test_a_job_is_not_begun(site: Installation, change: str) -> None:
    site.workers(1, **without_acme(site, change))
    job = site.enqueue(2 * MIB)
    site.until(lambda: waits(job), "its reason")
    assert (job.state, job.row["attempts"], job.asked("init")) == ("queued", 0, [])
    assert job.view["error"]["code"] == "tenant_not_allowed"
    assert site.sql("SELECT * FROM breaker") == []
    twin = site.enqueue(1000, store="twin") if change != "root" else None
    if twin is not None:  # what is not on the list holds up nothing else
        twin.succeeds()
    assert job.state == "queued"
    site.workers(1, **SHORT)
    job.succeeds()
    assert job.row["attempts"] == 0


def test_a_slice_is_not_sent(site: Installation) -> None:
    job = site.enqueue_half_sent()
    sent = len(job.asked("data"))
    site.workers(1, **without_acme(site, "store"))
    site.until(lambda: waits(job), "its reason")
    assert (job.state, len(job.asked("data"))) == ("uploading", sent)
    site.workers(1, **SHORT)
    job.succeeds()


def test_an_upload_is_not_finished(site: Installation) -> None:
    site.workers(1)
    key = site.fresh_key()
    site.store.control.add_rule("error", op="finish", path=key, status=503, code=-196)
    job = site.enqueue(2 * MIB, key)
    site.until(lambda: job.state == "finishing" and job.row["error"], "the finish that had no effect")
    site.workers(0)
    site.store.control.clear_rules()
    asked = len(job.asked("finish"))
    site.workers(1, **without_acme(site, "root"))
    site.until(lambda: waits(job), "its reason")
    assert (job.state, len(job.asked("finish"))) == ("finishing", asked)
    assert site.store.object_at(key) is None
    site.workers(1, **SHORT)
    job.succeeds()


def test_a_cancel_cleans_up_whatever_the_lists_say(site: Installation) -> None:
    job = site.enqueue_half_sent()
    site.workers(1, **without_acme(site, "store"))
    site.until(lambda: waits(job), "its reason")
    job.act("cancel")
    job.reaches("cancelled")
    assert "session_left_open" not in job.kinds
    assert job.key not in site.store.unfinished()
