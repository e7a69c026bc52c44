"""A job with `verify: file` does not succeed where the store shows no digest, however its object came there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import Installation
    from tests.support.job import Job

SIZE, SMALL = 4 * MIB, 1000


@pytest.fixture(autouse=True)
def _shows_no_digest(site: Installation) -> Iterator[None]:
    site.workers(2)
    site.store.control.change(sha_in_stat=False)
    yield
    site.store.control.change(sha_in_stat=True)


def is_unproven(job: Job) -> None:
    """Wait for the job's end, and check what it says."""
    assert job.fails() == "unproven"
    assert "verify: auto" in job.view["error"]["advice"]
    assert job.row["result"] is None
    assert job.site.store.object_at(job.key) == job.content


@pytest.mark.parametrize("terms", [{}, {"attributes": "own"}, {"overwrite": True}], ids=["mark", "attributes", "over"])
@pytest.mark.parametrize("size", [SIZE, SMALL], ids=["slices", "one request"])
def test_after_an_acknowledged_upload(site: Installation, size: int, terms: dict[str, object]) -> None:
    is_unproven(site.enqueue(size, verify="file", **terms))


@pytest.mark.parametrize(("size", "op"), [(SIZE, "finish"), (SMALL, "upload")])
def test_after_a_lost_answer(site: Installation, size: int, op: str) -> None:
    key = site.fresh_key()
    site.store.control.add_rule("cut", op=op, path=key, when="after", count=1)
    is_unproven(site.enqueue(size, key, verify="file"))


def test_after_an_instant_upload(site: Installation) -> None:
    key, elsewhere = site.fresh_key(), site.fresh_key()
    content = site.file(key, SIZE)
    site.store.plant_object(elsewhere, content, with_sha=True)
    job = site.enqueue(SIZE, key, content=content, verify="file")
    is_unproven(job)
    assert not job.asked("data")


@pytest.mark.parametrize("with_sha", [True, False])
@pytest.mark.parametrize("size", [SIZE, SMALL], ids=["slices", "one request"])
def test_over_an_object_that_is_equal(site: Installation, size: int, *, with_sha: bool) -> None:
    """Without the digest nothing shows that it is; what the store says is a weaker proof than the requested one."""
    key = site.fresh_key()
    content = site.file(key, size)
    site.store.plant_object(key, content, with_sha=with_sha)
    job = site.enqueue(size, key, content=content, verify="file")
    assert job.fails() == ("unproven" if with_sha else "object_exists")


@pytest.mark.parametrize(("size", "op"), [(SIZE, "finish"), (SMALL, "upload")])
def test_after_a_cancel_that_came_too_late(site: Installation, size: int, op: str) -> None:
    key = site.fresh_key()
    let_go = site.store.hold(op, key, when="after")
    job = site.enqueue(size, key, verify="file")
    site.store.held(op, key)
    job.act("cancel")
    let_go()
    row = job.reaches("cancelled").row
    assert row["result"]["session_left_open"]
    assert site.store.object_at(key) == job.content


def test_verify_auto_is_content_with_less(site: Installation) -> None:
    assert site.enqueue(SIZE).succeeds()["verified"] == "size"
    assert site.enqueue(SMALL).succeeds()["verified"] == "size"
