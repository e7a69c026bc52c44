"""Finish happens once, and is believed only on proof that the object is ours."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB
from tests.support.store import SLICE_BYTES

if TYPE_CHECKING:
    from tests.support.installation import Installation

SIZE = 2 * MIB
OLDER = b"o" * SIZE
SCALED = {"SLICEWAY_TIME_SCALE": "0.02", "SLICEWAY_HEARTBEAT_S": "10", "SLICEWAY_DEAD_AFTER_S": "500"}


@pytest.fixture(autouse=True)
def _workers(site: Installation) -> None:
    site.workers(2)


def lose_answer(site: Installation, key: str, *, op: str = "finish", when: str = "after") -> None:
    """Let the store close the connection instead of answering, once."""
    site.store.control.add_rule("cut", op=op, path=key, when=when, count=1)


@pytest.mark.parametrize("attributes", [None, "colour=green"])
def test_an_answer_lost_with_nothing_there_before_is_proven_by_a_stat(
    site: Installation, attributes: str | None
) -> None:
    lose_answer(site, "lost-*")
    job = site.enqueue(SIZE, f"lost-{attributes}", attributes=attributes)
    assert job.succeeds()["proof"] == ("none_before" if attributes else "mark")
    assert len(job.asked("finish")) == 1


def test_an_answer_lost_over_an_older_object_of_the_same_size_is_proven_by_our_mark(site: Installation) -> None:
    site.store.plant_object("over-marked", OLDER, sacred=False)
    lose_answer(site, "over-marked")
    job = site.enqueue(SIZE, "over-marked", overwrite=True)
    assert job.succeeds()["proof"] == "mark"
    assert len(job.asked("finish")) == 1


def test_an_answer_lost_over_an_older_object_without_our_mark_is_unproven(site: Installation) -> None:
    site.store.plant_object("over-unmarked", OLDER, sacred=False)
    lose_answer(site, "over-unmarked")
    job = site.enqueue(SIZE, "over-unmarked", overwrite=True, attributes="colour=green")
    assert job.fails() == "unproven"
    assert job.view["error"]["advice"]
    assert len(job.asked("finish")) == 1
    job.act("retry")
    assert job.succeeds()["proof"] == "acknowledged"


def test_an_older_object_is_not_taken_for_ours_when_the_finish_had_no_effect(site: Installation) -> None:
    site.store.plant_object("over-again", OLDER, sacred=False)
    lose_answer(site, "over-again", when="before")
    job = site.enqueue(SIZE, "over-again", overwrite=True, attributes="colour=green")
    assert job.succeeds()["proof"] == "acknowledged"
    assert [entry["effect"] for entry in job.asked("finish")] == [None, 0]


def test_an_answer_that_says_nothing_leads_to_a_stat(site: Installation) -> None:
    html = {"status": 502, "body": "<html>Bad gateway</html>", "when": "after"}
    site.store.control.add_rule("raw", op="finish", path="gateway", count=1, **html)
    job = site.enqueue(SIZE, "gateway")
    job.succeeds()
    assert len(job.asked("finish")) == 1


def test_an_object_that_appeared_meanwhile_is_left_alone(site: Installation) -> None:
    let_go = site.store.hold("finish", "appeared")
    job = site.enqueue(SIZE, "appeared")
    site.store.held("finish", "appeared")
    site.store.plant_object("appeared", OLDER)
    let_go()
    assert job.fails() == "object_exists"


def test_an_object_that_is_there_is_left_alone(site: Installation) -> None:
    site.store.plant_object("there", OLDER)
    job = site.enqueue(SIZE, "there")
    assert job.fails() == "object_exists"
    assert not job.asked("data")
    small = site.store.plant_object("there-small", b"short")
    assert site.enqueue(len(small), "there-small").fails() == "object_exists"


def test_an_overwrite_replaces_what_is_there(site: Installation) -> None:
    site.store.plant_object("replaced", OLDER, sacred=False)
    job = site.enqueue(SIZE, "replaced", overwrite=True)
    job.succeeds()
    assert not job.asked("delete")


def test_a_one_request_upload_whose_answer_is_lost_is_proven_by_its_digest(site: Installation) -> None:
    lose_answer(site, "small-lost", op="upload")
    job = site.enqueue(1000, "small-lost")
    assert job.succeeds()["proof"] == "digest"
    assert len(job.asked("upload")) == 1


def test_a_one_request_upload_over_an_older_object_whose_answer_is_lost(site: Installation) -> None:
    site.store.plant_object("small-over", b"o" * 1000, sacred=False)
    lose_answer(site, "small-over", op="upload", when="before")
    job = site.enqueue(1000, "small-over", overwrite=True)
    job.succeeds()
    assert len(job.asked("upload")) == 2


def test_a_slow_finish_is_waited_for_as_long_as_its_store_says(site: Installation) -> None:
    """At this scale a finish has 4.8 s if its store says nothing else; its lease and its deadline follow the store."""
    stores = site.stores()
    stores["main"]["finish_timeout_s"] = 1000
    site.workers(1, SLICEWAY_STORES_FILE=site.stores_file("slow-finish", stores), **SCALED)
    site.store.control.add_rule("delay", op="finish", path="slow-finish", delay_s=7)
    job = site.enqueue(SIZE, "slow-finish").reaches("finishing")
    claimed = "SELECT lease_until - updated_at AS lease FROM job WHERE id = %(id)s AND step = 'running'"
    site.until(lambda: site.sql(claimed, id=job.id), "the finish claimed")
    assert site.sql(claimed, id=job.id) == [{"lease": timedelta(seconds=0.02 * (120 + 1000 + 15))}]
    job.succeeds()
    assert job.row["finish_claims"] == len(job.asked("finish")) == 1


def test_a_worker_killed_while_it_finishes_leaves_one_finish(site: Installation) -> None:
    let_go = site.store.hold("finish", "killed", when="after", count=1)
    job = site.enqueue(SIZE, "killed")
    site.store.held("finish", "killed")
    [row] = site.sql("SELECT w.name FROM job j JOIN worker w ON w.id = j.worker WHERE j.id = %(id)s", id=job.id)
    site.worker_named(row["name"]).kill()
    job.succeeds()
    assert job.row["result"]["proof"] == "mark"
    assert len(job.asked("finish")) == 1
    let_go()
    assert job.asked("data", offset=0, effect=0)[0]["size"] == SLICE_BYTES
