"""Init: its claim, what it stores, the session with its plan, and repeated claims."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.database import AT_ONCE, LEASE, cancel_job, opened_session
from worker.errors import StaleClaim
from worker.jobs import transitions
from worker.jobs.rows import InitProgress
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from tests.integration.jobs.database import JobsDatabase
    from worker.jobs.documents import HashingDocument


# --- init ---


def test_a_claim_of_init_starts_the_job_once(db: JobsDatabase) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    assert db.columns(job, "state", "step", "worker") == ("initializing", "running", db.worker)
    started = db.row(job)["started_at"]
    with db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    db.take(job)
    assert db.row(job)["started_at"] == started
    assert db.kinds(job) == ["enqueued", "init_claimed", "init_deferred", "init_claimed"]


def test_init_stores_what_it_knows_and_extends_its_lease(db: JobsDatabase) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    before = db.row(job)["lease_until"]
    hashing: HashingDocument = {"offset_bytes": 2, "state": None}
    first = InitProgress({"size": 5}, 5, hashing=hashing, existed=True)
    with db.connection() as tx:
        transitions.save_progress(tx, claim, first, timedelta(hours=1))
        transitions.save_progress(tx, claim, InitProgress({"size": 5}, 5), timedelta(hours=1))
    assert db.columns(job, "fingerprint", "hashing", "existed") == ({"size": 5}, None, True)
    assert db.row(job)["lease_until"] - before > timedelta(minutes=50)


def test_an_event_without_a_move_is_recorded_for_the_holder_only(db: JobsDatabase) -> None:
    """A stale init would record an event of an ended epoch, and then continue at the store."""
    job = db.enqueue()
    (stale,) = db.take(job)
    with db.connection() as tx:
        transitions.release(tx, stale, AT_ONCE)
    (claim,) = db.take(job)
    with db.connection() as tx:
        transitions.note(tx, claim, "foreign_session_discarded", {"slices": 2})
    with pytest.raises(StaleClaim), db.connection() as tx:
        transitions.note(tx, stale, "foreign_session_discarded", {"slices": 3})
    causes = [event["cause"] for event in db.events(job) if event["kind"] == "foreign_session_discarded"]
    assert causes == [{"slices": 2}]


def test_a_session_has_one_row_a_slice_and_they_cover_the_file(db: JobsDatabase) -> None:
    job = db.uploading(4, held=[1])
    assert [(s["offset_bytes"], s["size_bytes"]) for s in db.slices(job)] == [(0, 10), (10, 10), (20, 10), (30, 7)]
    assert db.states(job) == ["pending", "done", "pending", "pending"]
    assert db.columns(job, "state", "step", "slices_left", "bytes_done") == ("uploading", "idle", 3, 10)
    assert db.kinds(job)[-1] == "session_opened"


def test_a_session_is_stored_with_the_file_that_it_is_of(db: JobsDatabase) -> None:
    job = db.uploading(2)
    assert db.columns(job, "session", "fingerprint", "size_bytes", "existed") == (
        {"handle": "s-1"},
        {"size": 1},
        17,
        False,
    )


def test_a_session_whose_store_has_every_slice_goes_straight_to_finishing(db: JobsDatabase) -> None:
    job = db.uploading(2, held=[0, 1])
    assert db.columns(job, "state", "step", "slices_left", "bytes_done") == ("finishing", "pending", 0, 17)
    assert db.kinds(job)[-1] == "all_slices_held"


def test_an_empty_plan_goes_straight_to_finishing(db: JobsDatabase) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    with db.connection() as tx:
        assert transitions.open_session(tx, claim, opened_session(0)) is JobState.FINISHING
    assert db.slices(job) == []


def test_a_session_opened_after_a_cancel_is_kept_for_the_abort(db: JobsDatabase) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    with db.connection() as tx:
        assert cancel_job(tx, job) is JobState.CANCELLING
    assert db.open(claim, 3) is JobState.CANCELLING
    assert db.columns(job, "state", "step", "session") == ("cancelling", "idle", {"handle": "s-1"})
    assert db.slices(job) == []
    assert db.kinds(job)[-1] == "cancel_requested"


# --- a claim whose result was lost ---


def test_a_step_reclaimed_by_its_holder_stays_claimed(db: JobsDatabase) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    with db.connection() as tx:
        row = transitions.claim_step(tx, claim, JobState.QUEUED, LEASE, reclaim=True)
        assert row.state == "initializing"
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
        other = db.claim_of(job, worker=db.start_worker())
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, other, JobState.QUEUED, LEASE, reclaim=True)
    assert db.kinds(job).count("init_claimed") == 1


def test_a_slice_reclaimed_by_its_holder_stays_claimed(db: JobsDatabase) -> None:
    job = db.uploading(1)
    (claim,) = db.take(job, 0)
    with db.connection() as tx:
        row = transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE, reclaim=True)
        assert row.session == {"handle": "s-1"}
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
        other = db.claim_of(job, 0, worker=db.start_worker())
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, other, low_speed=1, slack=LEASE, reclaim=True)
    db.checkpoint(claim)
    with db.connection() as tx, pytest.raises(StaleClaim):
        transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE, reclaim=True)


def test_a_claim_that_was_never_granted_is_granted_the_second_time(db: JobsDatabase) -> None:
    job = db.uploading(1)
    db.dispatch(job, 0)
    with db.connection() as tx:
        transitions.claim_slice(tx, db.claim_of(job, 0), low_speed=1, slack=LEASE, reclaim=True)
    assert db.states(job) == ["sending"]


def test_the_lease_of_a_step_is_that_of_its_jobs_store(db: JobsDatabase) -> None:
    usual, slow = db.enqueue(), db.enqueue(store="slow")
    for job in (usual, slow):
        db.dispatch(job)
        with db.connection() as tx:
            transitions.claim_step(tx, db.claim_of(job), JobState.QUEUED, LEASE, leases={"slow": 700.5, "other": 900})
    leases = [(row["lease_until"] - row["updated_at"]).total_seconds() for row in (db.row(usual), db.row(slow))]
    assert leases == [LEASE.total_seconds(), 700.5]


def test_the_lease_of_a_slice_grows_with_its_size(db: JobsDatabase) -> None:
    job = db.uploading(2)
    db.dispatch(job, 0, 1)
    with db.connection() as tx:
        for number in (0, 1):
            transitions.claim_slice(tx, db.claim_of(job, number), low_speed=2, slack=timedelta(seconds=45))
    leases = [(row["lease_until"] - row["claimed_at"]).total_seconds() for row in db.slices(job)]
    assert leases == [45 + 10 / 2, 45 + 7 / 2]
