"""Cancelled jobs whose store has left the stores file, refuses us or does not answer: none waits for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.installation import MIB

if TYPE_CHECKING:
    from tests.support.installation import Installation
    from tests.support.job import Job, Row


def without_store(site: Installation, how: str = "gone") -> str:
    """A stores file in which the store `main` is no longer, or leads elsewhere."""
    stores = site.stores()
    main = stores.pop("main")
    if how == "elsewhere":
        stores["main"] = main | {"bucket": how}
    return site.stores_file(f"stores-{how}", stores)


def left_open(job: Job) -> Row:
    """What the history says of the session that was left."""
    assert job.kinds[-2:] == ["session_left_open", "cancelled"]
    cause: Row = job.events[-2]["cause"]
    assert job.row["result"] == {"session_left_open": cause["reason"]}
    return cause


def refuse_all(site: Installation) -> None:
    """Let the store not know us any more."""
    site.store.control.add_rule("error", status=403, code=-97)


def unheard(site: Installation) -> Job:
    """A job that may have begun a session, which it has never heard of."""
    key = site.fresh_key()
    site.store.control.add_rule("cut", op="init", path=key, when="after")
    job = site.enqueue(2 * MIB, key)
    site.until(lambda: (job.row["error"] or {}).get("code") == "store_unavailable", "the answer missed")
    return job


def shift(site: Installation, job: Job, hours: float) -> None:
    """Let so much time have passed since the cancel."""
    site.sql("UPDATE event SET at = at - make_interval(secs => %(s)s) WHERE job_id = %(id)s", id=job.id, s=hours * 3600)
    site.sql(
        """UPDATE job SET updated_at = updated_at - make_interval(secs => %(s)s), not_before = NULL,
             failing_since = failing_since - make_interval(secs => %(s)s) WHERE id = %(id)s""",
        id=job.id,
        s=hours * 3600,
    )


@pytest.mark.parametrize("how", ["gone", "elsewhere"])
def test_a_session_at_a_store_that_left_the_file_is_left_open_and_reported(site: Installation, how: str) -> None:
    job = site.enqueue_half_sent()
    session = job.row["session"]
    site.workers(1, SLICEWAY_STORES_FILE=without_store(site, how))
    job.act("cancel")
    job.reaches("cancelled")
    cause = left_open(job)
    assert (cause["session"], cause["target"]) == (session, job.row["target"])
    assert "store 'main'" in cause["reason"]


def test_a_breaker_that_the_store_left_behind_keeps_no_abort(site: Installation) -> None:
    job = site.enqueue_half_sent()
    refuse_all(site)
    site.workers(1)
    site.until(lambda: site.sql("SELECT store FROM breaker"), "the breaker")
    site.workers(1, SLICEWAY_STORES_FILE=without_store(site))
    job.act("cancel")
    job.reaches("cancelled")
    assert left_open(job)["session"]
    site.sql("DELETE FROM breaker")


def test_the_store_is_gone_from_one_workers_file_only(site: Installation) -> None:
    job = site.enqueue_half_sent()
    [without] = site.workers(1, SLICEWAY_STORES_FILE=without_store(site))
    job.act("cancel")
    site.until(lambda: "another worker may have it" in (job.row["error"] or {}).get("message", ""), "the store missed")
    without.freeze()  # it is not to be asked again before the other is there
    site.start_worker(site.environ | {"SLICEWAY_HEARTBEAT_S": "0.2", "SLICEWAY_DEAD_AFTER_S": "2"})
    job.reaches("cancelled")
    without.thaw()
    assert "session_left_open" not in job.kinds
    assert job.key not in site.store.unfinished()


def test_jobs_that_the_store_refused_from_the_first_end_at_their_cancel(site: Installation) -> None:
    site.workers(2)
    refuse_all(site)
    met, behind = site.enqueue(2 * MIB), site.enqueue(2 * MIB)
    site.until(lambda: site.sql("SELECT store FROM breaker"), "the breaker")
    site.until(lambda: {met.state, behind.state} == {"queued"}, "both waiting")
    for job in (met, behind):
        assert job.act("cancel")["state"] == "cancelled"
        assert "session_left_open" not in job.kinds
    site.sql("DELETE FROM breaker")


def test_a_session_that_was_never_heard_of_waits_for_no_store_put_right(site: Installation) -> None:
    site.workers(2)
    job = unheard(site)
    refuse_all(site)
    other = site.enqueue(2 * MIB)
    site.until(lambda: site.sql("SELECT store FROM breaker"), "the breaker")
    site.until(lambda: job.state == "queued", "it waiting")
    job.act("cancel")
    job.reaches("cancelled")
    assert "did not let it be looked for" in left_open(job)["reason"]
    other.act("cancel")
    other.reaches("cancelled")
    site.sql("DELETE FROM breaker")


def test_a_session_behind_a_breaker_is_kept_for_a_day_and_no_longer(site: Installation) -> None:
    job = site.enqueue_half_sent()
    refuse_all(site)
    site.workers(1)
    site.until(lambda: site.sql("SELECT store FROM breaker"), "the breaker")
    site.until(lambda: all(row["state"] != "sending" for row in job.slices), "nothing on its way")
    job.act("cancel")
    site.until(lambda: job.row["step"] == "pending", "its abort due")
    shift(site, job, 23)
    assert job.state == "cancelling"
    shift(site, job, 1.1)
    job.reaches("cancelled")
    assert "24 h" in left_open(job)["reason"]
    site.sql("DELETE FROM breaker")


def test_a_store_that_does_not_answer_is_asked_for_an_hour_without_a_session_for_a_day_with_one(
    site: Installation,
) -> None:
    held = site.enqueue_half_sent()
    site.store.control.add_rule("error", op="data", path=held.key, status=503, code=-196)  # lest it be finished now
    site.workers(1)
    begun = unheard(site)
    site.store.kill()
    try:
        for job in (begun, held):
            job.act("cancel")
            site.until(lambda job=job: job.row["failing_since"], "an attempt")
            shift(site, job, 0.9)
        site.until(lambda: all(job.row["step"] == "pending" for job in (begun, held)), "both waiting again")
        assert (begun.state, held.state) == ("cancelling", "cancelling")
        shift(site, begun, 0.2)
        begun.reaches("cancelled")
        assert "1 h" in left_open(begun)["reason"]
        shift(site, held, 20)
        site.until(lambda: held.row["step"] == "pending", "it waiting again")
        assert held.state == "cancelling"
        shift(site, held, 4)
        held.reaches("cancelled")
        assert "24 h" in left_open(held)["reason"]
    finally:
        site.store.start()
