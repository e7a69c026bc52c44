"""Leadership, heartbeats, lost claims and breakers, all by the database's clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.jobs.database import ERROR, LEASE, cancel_job
from worker.jobs import breakers, control, due, leadership, leases, transitions, workers
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase


PROBE_S = 60.0

# --- leading ---


def test_a_worker_leads_until_its_time_is_over(db: JobsDatabase) -> None:
    first, second = uuid4(), uuid4()
    with db.connection() as tx:
        assert leadership.lead(tx, first, 60) == 1
        assert leadership.lead(tx, second, 60) is None
        assert leadership.lead(tx, first, 60) == 1
        db.run("UPDATE leadership SET until = now() - interval '1 ms'")
        assert leadership.lead(tx, second, 60) == 2
        assert leadership.lead(tx, first, 60) is None


def test_a_leader_that_returns_before_another_leads_keeps_its_term(db: JobsDatabase) -> None:
    holder = uuid4()
    with db.connection() as tx:
        leadership.lead(tx, holder, 60)
        db.run("UPDATE leadership SET until = now() - interval '1 hour'")
        assert leadership.lead(tx, holder, 60) == 1


def test_a_leader_that_resigns_frees_the_lead_at_once_and_only_its_own(db: JobsDatabase) -> None:
    first, second = uuid4(), uuid4()
    with db.connection() as tx:
        leadership.lead(tx, first, 60)
        leadership.resign(tx, second)
        assert leadership.lead(tx, second, 60) is None
        leadership.resign(tx, first)
        assert leadership.lead(tx, second, 60) == 2


# --- workers ---


def test_a_worker_lives_by_its_heartbeat(db: JobsDatabase) -> None:
    silent, lively = db.start_worker(), db.start_worker()
    db.run("UPDATE worker SET heartbeat_at = now() - interval '11 s'")
    with db.connection() as tx:
        assert workers.heartbeat(tx, lively, slots=4, roots=["media"], claimed_through=None)
        dead = {row.id for row in workers.end_dead_workers(tx, 10)}
        assert dead == {silent, db.worker}
        assert workers.end_dead_workers(tx, 10) == []
        assert not workers.heartbeat(tx, silent, slots=4, roots=[], claimed_through=None)
        assert due.snapshot(tx, whole_bytes=0).slots == 4
    assert db.run('SELECT "end", roots FROM worker WHERE id = %s', lively) == [{"end": None, "roots": ["media"]}]


def test_a_worker_that_stopped_did_not_die(db: JobsDatabase) -> None:
    with db.connection() as tx:
        workers.stop_worker(tx, db.worker)
        assert not workers.heartbeat(tx, db.worker, slots=4, roots=[], claimed_through=None)
        db.run("UPDATE worker SET heartbeat_at = now() - interval '1 day'")
        assert workers.end_dead_workers(tx, 10) == []
    assert db.run('SELECT "end" FROM worker') == [{"end": "stopped"}]


def test_a_worker_that_died_does_not_become_one_that_stopped(db: JobsDatabase) -> None:
    db.end_worker(db.worker)
    with db.connection() as tx:
        workers.stop_worker(tx, db.worker)
    assert db.run('SELECT "end" FROM worker') == [{"end": "dead"}]


def test_workers_that_ended_long_ago_are_forgotten(db: JobsDatabase) -> None:
    db.run("UPDATE worker SET ended_at = now() - interval '8 days', \"end\" = 'dead'")
    kept = db.start_worker()
    with db.connection() as tx:
        workers.end_dead_workers(tx, 10)
    assert db.run("SELECT id FROM worker") == [{"id": kept}]


def test_what_was_claimed_only_grows(db: JobsDatabase) -> None:
    (clock,) = db.run("SELECT now() AS now")
    now = clock["now"]
    with db.connection() as tx:
        for claimed_at in (now, now - timedelta(minutes=1), None):
            workers.heartbeat(tx, db.worker, slots=4, roots=[], claimed_through=claimed_at)
            assert due.snapshot(tx, whole_bytes=0).claimed_through == now


# --- claims that may not go on ---


def test_a_claim_that_is_held_goes_on(db: JobsDatabase) -> None:
    job, other = db.uploading(2), db.finishing(1)
    claims = [*db.take(job, 0), *db.take(other)]
    with db.connection() as tx:
        assert leases.lost_claims(tx, [(claim, False) for claim in claims], db.worker) == set()


@pytest.mark.parametrize("how", ["cancel", "new epoch", "rescue", "checkpoint", "another worker", "another token"])
def test_a_slice_that_may_not_go_on_is_reported(db: JobsDatabase, how: str) -> None:
    job = db.uploading(3)
    claim, other = db.take(job, 0, 1)
    with db.connection() as tx:
        if how == "cancel":
            cancel_job(tx, job)
        elif how == "new epoch":
            transitions.new_epoch(tx, other, ERROR, None)
        elif how == "rescue":
            db.end_worker(db.worker)
            transitions.rescue(tx)
        elif how == "checkpoint":
            db.checkpoint(claim)
        asked = replace(claim, token=claim.token + 1) if how == "another token" else claim
        worker = uuid4() if how == "another worker" else db.worker
        assert leases.lost_claims(tx, [(asked, False)], worker) == {(job, 0)}


def test_a_slice_of_a_failed_or_paused_job_may_end(db: JobsDatabase) -> None:
    job = db.uploading(3)
    failing, claim = db.take(job, 0, 1)
    with db.connection() as tx:
        control.pause(tx, [job], "o", "why")
        transitions.fail(tx, failing, ERROR)
        assert leases.lost_claims(tx, [(claim, False)], db.worker) == set()


def test_a_cancel_ends_the_finish_and_not_the_abort(db: JobsDatabase) -> None:
    job = db.finishing(1)
    (finish,) = db.take(job)
    with db.connection() as tx:
        cancel_job(tx, job)
        assert leases.lost_claims(tx, [(finish, False)], db.worker) == {(job, None)}
        transitions.release(tx, finish, Deferral(None, None))
        transitions.promote_due(tx)
        (abort,) = db.take(job)
        assert leases.lost_claims(tx, [(abort, True)], db.worker) == set()
        assert leases.lost_claims(tx, [(finish, False), (replace(abort, token=99), True)], db.worker) == {(job, None)}


# --- breakers ---


def test_a_breaker_opens_once_and_keeps_since_when(db: JobsDatabase) -> None:
    with db.connection() as tx:
        assert breakers.open_breaker(tx, "main", ERROR, PROBE_S)
        (before,) = db.run("SELECT * FROM breaker")
        assert not breakers.open_breaker(tx, "main", ERROR | {"message": "still no"}, PROBE_S)
        (after,) = db.run("SELECT * FROM breaker")
        assert (after["opened_at"], after["error"]["message"]) == (before["opened_at"], "still no")
        assert due.snapshot(tx, whole_bytes=0).waiting_stores == {"main": False}


def test_a_probe_is_due_a_minute_later_and_then_once_a_minute(db: JobsDatabase) -> None:
    with db.connection() as tx:
        breakers.open_breaker(tx, "main", ERROR, PROBE_S)
        db.run("UPDATE breaker SET probe_at = now()")
        assert due.snapshot(tx, whole_bytes=0).waiting_stores == {"main": True}
        breakers.note_probes(tx, ["main"], PROBE_S)
        assert due.snapshot(tx, whole_bytes=0).waiting_stores == {"main": False}
    (left,) = db.run("SELECT extract(epoch FROM probe_at - now())::float8 AS s FROM breaker")
    assert PROBE_S - 30 < left["s"] <= PROBE_S


def test_a_store_that_answers_again_gives_its_jobs_their_time_back(db: JobsDatabase) -> None:
    job, elsewhere, over = db.uploading(2), db.enqueue(store="b"), db.enqueue()
    with db.connection() as tx:
        transitions.release(tx, db.take(job, 0)[0], Deferral(None, ERROR))
        cancel_job(tx, over)
        breakers.open_breaker(tx, "main", ERROR, PROBE_S)
    db.run("UPDATE job SET failing_since = now() - interval '3 days', not_before = now() + interval '1 hour'")
    with db.connection() as tx:
        assert breakers.close_breaker(tx, "main")
        assert not breakers.close_breaker(tx, "main")
    clocks = {row["id"]: (row["failing_since"], row["not_before"]) for row in db.run("SELECT * FROM job")}
    assert clocks[job] == (None, None)
    assert None not in clocks[elsewhere]
    assert None not in clocks[over]
    assert db.run("SELECT store FROM breaker") == []


def test_a_claim_says_whether_its_store_waits(db: JobsDatabase) -> None:
    job, uploading = db.enqueue(), db.uploading(2)
    db.dispatch(job)
    db.dispatch(uploading, 0)
    with db.connection() as tx:
        breakers.open_breaker(tx, "main", ERROR, PROBE_S)
        row = transitions.claim_step(tx, db.claim_of(job), JobState.QUEUED, LEASE)
        assert row.breaker_open is True
        row = transitions.claim_slice(tx, db.claim_of(uploading, 0), low_speed=1, slack=LEASE)
        assert row.breaker_open is True
        breakers.close_breaker(tx, "main")
        row = transitions.claim_step(tx, db.claim_of(job), JobState.QUEUED, LEASE, reclaim=True)
        assert row.breaker_open is False
