"""Who lives, who leads, which stores wait; all by the database's clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from worker.jobs import breakers, due, leadership, leases, transitions, workers
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from tests.integration.jobs.bench import Bench


LEASE = timedelta(minutes=1)
PROBE_S = 60.0
ERROR = {"code": "store_unusable", "message": "no", "advice": "look"}

# --- leading ---


def test_one_leads_until_its_time_is_over(bench: Bench) -> None:
    first, second = uuid4(), uuid4()
    with bench.db.connection() as tx:
        assert leadership.lead(tx, first, 60) == 1
        assert leadership.lead(tx, second, 60) is None
        assert leadership.lead(tx, first, 60) == 1
        bench.run("UPDATE leadership SET until = now() - interval '1 ms'")
        assert leadership.lead(tx, second, 60) == 2
        assert leadership.lead(tx, first, 60) is None


def test_who_comes_back_before_anybody_else_keeps_its_term(bench: Bench) -> None:
    holder = uuid4()
    with bench.db.connection() as tx:
        leadership.lead(tx, holder, 60)
        bench.run("UPDATE leadership SET until = now() - interval '1 hour'")
        assert leadership.lead(tx, holder, 60) == 1


def test_who_resigns_makes_way_at_once_and_only_for_itself(bench: Bench) -> None:
    first, second = uuid4(), uuid4()
    with bench.db.connection() as tx:
        leadership.lead(tx, first, 60)
        leadership.resign(tx, second)
        assert leadership.lead(tx, second, 60) is None
        leadership.resign(tx, first)
        assert leadership.lead(tx, second, 60) == 2


# --- workers ---


def test_a_worker_lives_by_its_heartbeat(bench: Bench) -> None:
    silent, lively = bench.start_worker(), bench.start_worker()
    bench.run("UPDATE worker SET heartbeat_at = now() - interval '11 s'")
    with bench.db.connection() as tx:
        assert workers.heartbeat(tx, lively, slots=4, roots=["media"], claimed_through=None)
        dead = {row["id"] for row in workers.end_dead_workers(tx, 10)}
        assert dead == {silent, bench.worker}
        assert workers.end_dead_workers(tx, 10) == []
        assert not workers.heartbeat(tx, silent, slots=4, roots=[], claimed_through=None)
        assert due.snapshot(tx, whole_bytes=0).slots == 4
    assert bench.run('SELECT "end", roots FROM worker WHERE id = %s', lively) == [{"end": None, "roots": ["media"]}]


def test_a_worker_that_stopped_did_not_die(bench: Bench) -> None:
    with bench.db.connection() as tx:
        workers.stop_worker(tx, bench.worker)
        assert not workers.heartbeat(tx, bench.worker, slots=4, roots=[], claimed_through=None)
        bench.run("UPDATE worker SET heartbeat_at = now() - interval '1 day'")
        assert workers.end_dead_workers(tx, 10) == []
    assert bench.run('SELECT "end" FROM worker') == [{"end": "stopped"}]


def test_a_worker_that_died_does_not_become_one_that_stopped(bench: Bench) -> None:
    bench.end_worker(bench.worker)
    with bench.db.connection() as tx:
        workers.stop_worker(tx, bench.worker)
    assert bench.run('SELECT "end" FROM worker') == [{"end": "dead"}]


def test_workers_that_ended_long_ago_are_forgotten(bench: Bench) -> None:
    bench.run("UPDATE worker SET ended_at = now() - interval '8 days', \"end\" = 'dead'")
    kept = bench.start_worker()
    with bench.db.connection() as tx:
        workers.end_dead_workers(tx, 10)
    assert bench.run("SELECT id FROM worker") == [{"id": kept}]


def test_what_was_claimed_only_grows(bench: Bench) -> None:
    (clock,) = bench.run("SELECT now() AS now")
    now = clock["now"]
    with bench.db.connection() as tx:
        for told in (now, now - timedelta(minutes=1), None):
            workers.heartbeat(tx, bench.worker, slots=4, roots=[], claimed_through=told)
            assert due.snapshot(tx, whole_bytes=0).claimed_through == now


# --- claims that may not go on ---


def test_a_claim_that_is_held_goes_on(bench: Bench) -> None:
    job, other = bench.uploading(2), bench.finishing(1)
    claims = [*bench.take(job, 0), *bench.take(other)]
    with bench.db.connection() as tx:
        assert leases.lost_claims(tx, [(claim, False) for claim in claims], bench.worker) == set()


@pytest.mark.parametrize("how", ["cancel", "new epoch", "rescue", "checkpoint", "another worker", "another token"])
def test_a_slice_that_may_not_go_on_is_told(bench: Bench, how: str) -> None:
    job = bench.uploading(3)
    claim, other = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        if how == "cancel":
            transitions.cancel(tx, job, "o")
        elif how == "new epoch":
            transitions.new_epoch(tx, other, ERROR, None)
        elif how == "rescue":
            bench.end_worker(bench.worker)
            transitions.rescue(tx)
        elif how == "checkpoint":
            bench.checkpoint(claim)
        asked = replace(claim, token=claim.token + 1) if how == "another token" else claim
        worker = uuid4() if how == "another worker" else bench.worker
        assert leases.lost_claims(tx, [(asked, False)], worker) == {(job, 0)}


def test_a_slice_of_a_failed_or_paused_job_may_end(bench: Bench) -> None:
    job = bench.uploading(3)
    failing, claim = bench.take(job, 0, 1)
    with bench.db.connection() as tx:
        transitions.pause(tx, job, "o", "why")
        transitions.fail(tx, failing, ERROR)
        assert leases.lost_claims(tx, [(claim, False)], bench.worker) == set()


def test_a_cancel_ends_the_finish_and_not_the_abort(bench: Bench) -> None:
    job = bench.finishing(1)
    (finish,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.cancel(tx, job, "o")
        assert leases.lost_claims(tx, [(finish, False)], bench.worker) == {(job, None)}
        transitions.release(tx, finish, Deferral(None, None))
        transitions.promote_due(tx)
        (abort,) = bench.take(job)
        assert leases.lost_claims(tx, [(abort, True)], bench.worker) == set()
        assert leases.lost_claims(tx, [(finish, False), (replace(abort, token=99), True)], bench.worker) == {
            (job, None)
        }


# --- stores that wait ---


def test_a_breaker_opens_once_and_keeps_since_when(bench: Bench) -> None:
    with bench.db.connection() as tx:
        assert breakers.open_breaker(tx, "main", ERROR, PROBE_S)
        (before,) = bench.run("SELECT * FROM breaker")
        assert not breakers.open_breaker(tx, "main", ERROR | {"message": "still no"}, PROBE_S)
        (after,) = bench.run("SELECT * FROM breaker")
        assert (after["opened_at"], after["error"]["message"]) == (before["opened_at"], "still no")
        assert due.snapshot(tx, whole_bytes=0).waiting_stores == {"main": False}


def test_a_probe_is_due_a_minute_later_and_then_once_a_minute(bench: Bench) -> None:
    with bench.db.connection() as tx:
        breakers.open_breaker(tx, "main", ERROR, PROBE_S)
        bench.run("UPDATE breaker SET probe_at = now()")
        assert due.snapshot(tx, whole_bytes=0).waiting_stores == {"main": True}
        breakers.note_probes(tx, ["main"], PROBE_S)
        assert due.snapshot(tx, whole_bytes=0).waiting_stores == {"main": False}
    (left,) = bench.run("SELECT extract(epoch FROM probe_at - now())::float8 AS s FROM breaker")
    assert PROBE_S - 30 < left["s"] <= PROBE_S


def test_a_store_that_answers_again_gives_its_jobs_their_time_back(bench: Bench) -> None:
    job, elsewhere, over = bench.uploading(2), bench.enqueue(store="b"), bench.enqueue()
    with bench.db.connection() as tx:
        transitions.release(tx, bench.take(job, 0)[0], Deferral(None, ERROR))
        transitions.cancel(tx, over, "o")
        breakers.open_breaker(tx, "main", ERROR, PROBE_S)
    bench.run("UPDATE job SET failing_since = now() - interval '3 days', not_before = now() + interval '1 hour'")
    with bench.db.connection() as tx:
        assert breakers.close_breaker(tx, "main")
        assert not breakers.close_breaker(tx, "main")
    clocks = {row["id"]: (row["failing_since"], row["not_before"]) for row in bench.run("SELECT * FROM job")}
    assert clocks[job] == (None, None)
    assert None not in clocks[elsewhere]
    assert None not in clocks[over]
    assert bench.run("SELECT store FROM breaker") == []


def test_a_claim_says_whether_its_store_waits(bench: Bench) -> None:
    job, uploading = bench.enqueue(), bench.uploading(2)
    bench.dispatch(job)
    bench.dispatch(uploading, 0)
    with bench.db.connection() as tx:
        breakers.open_breaker(tx, "main", ERROR, PROBE_S)
        row = transitions.claim_step(tx, bench.claim_of(job), JobState.QUEUED, LEASE)
        assert row["breaker_open"] is True
        row = transitions.claim_slice(tx, bench.claim_of(uploading, 0), low_speed=1, slack=LEASE)
        assert row["breaker_open"] is True
        breakers.close_breaker(tx, "main")
        row = transitions.claim_step(tx, bench.claim_of(job), JobState.QUEUED, LEASE, reclaim=True)
        assert row["breaker_open"] is False
