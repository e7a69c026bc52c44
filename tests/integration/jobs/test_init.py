"""How an upload begins: once, planned, and known to whoever goes on with it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import StaleClaim
from worker.jobs import transitions
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from tests.integration.jobs.bench import Bench


LEASE = timedelta(minutes=1)
ERROR = {"code": "store_refused", "message": "no", "advice": "look", "at": "2026-01-01T00:00:00+00:00"}
UNAVAILABLE = ERROR | {"code": "store_unavailable"}
SOON = Deferral(timedelta(minutes=5), UNAVAILABLE, attempt=True)
AT_ONCE = Deferral(None, None)


def at(bench: Bench, job: Any, *columns: str) -> tuple[Any, ...]:
    row = bench.row(job)
    return tuple(row[column] for column in columns)


# --- init ---


def test_a_claim_of_init_starts_the_job_once(bench: Bench) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    assert at(bench, job, "state", "step", "worker") == ("initializing", "running", bench.worker)
    started = bench.row(job)["started_at"]
    with bench.db.connection() as tx:
        transitions.release(tx, claim, AT_ONCE)
    bench.take(job)
    assert bench.row(job)["started_at"] == started
    assert bench.kinds(job) == ["enqueued", "init_claimed", "init_deferred", "init_claimed"]


def test_init_stores_what_it_knows_and_extends_its_lease(bench: Bench) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    before = bench.row(job)["lease_until"]
    known = {"fingerprint": {"size": 5}, "size_bytes": 5, "hashing": {"offset_bytes": 2}, "digests": {"value": "d"}}
    with bench.db.connection() as tx:
        transitions.save_progress(tx, claim, known | {"existed": True}, timedelta(hours=1))
        transitions.save_progress(tx, claim, known | {"hashing": None, "existed": None}, timedelta(hours=1))
    assert at(bench, job, "fingerprint", "hashing", "existed") == ({"size": 5}, None, True)
    assert bench.row(job)["lease_until"] - before > timedelta(minutes=50)


def test_an_event_without_a_move_is_told_by_the_holder_alone(bench: Bench) -> None:
    """A stale init would write of an epoch that is over, and then go on at the store."""
    job = bench.enqueue()
    (stale,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.release(tx, stale, AT_ONCE)
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        transitions.note(tx, claim, "foreign_session_discarded", {"slices": 2})
    with pytest.raises(StaleClaim), bench.db.connection() as tx:
        transitions.note(tx, stale, "foreign_session_discarded", {"slices": 3})
    told = [event["cause"] for event in bench.events(job) if event["kind"] == "foreign_session_discarded"]
    assert told == [{"slices": 2}]


def test_a_session_brings_a_row_a_slice_that_cover_the_file(bench: Bench) -> None:
    job = bench.uploading(4, held=[1])
    assert [(s["offset_bytes"], s["size_bytes"]) for s in bench.slices(job)] == [(0, 10), (10, 10), (20, 10), (30, 7)]
    assert bench.states(job) == ["pending", "done", "pending", "pending"]
    assert at(bench, job, "state", "step", "slices_left", "bytes_done") == ("uploading", "idle", 3, 10)
    assert bench.kinds(job)[-1] == "session_opened"


def test_a_session_is_stored_with_the_file_that_it_is_of(bench: Bench) -> None:
    job = bench.uploading(2)
    assert at(bench, job, "session", "fingerprint", "size_bytes", "existed") == (
        {"handle": "s-1"},
        {"size": 1},
        17,
        False,
    )


def test_a_session_whose_store_has_every_slice_goes_straight_to_finishing(bench: Bench) -> None:
    job = bench.uploading(2, held=[0, 1])
    assert at(bench, job, "state", "step", "slices_left", "bytes_done") == ("finishing", "pending", 0, 17)
    assert bench.kinds(job)[-1] == "all_slices_held"


def test_an_empty_plan_goes_straight_to_finishing(bench: Bench) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    plan = {"slice_bytes": 10, "ordered": False, "total": 0, "held": [], "bytes_done": 0}
    plan |= {"fingerprint": {"size": 0}, "size_bytes": 0}
    with bench.db.connection() as tx:
        assert transitions.open_session(tx, claim, {"h": 1}, plan, {}) is JobState.FINISHING
    assert bench.slices(job) == []


def test_a_session_that_came_after_a_cancel_is_remembered_for_the_abort(bench: Bench) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        assert transitions.cancel(tx, job, "o") is JobState.CANCELLING
    assert bench.open(claim, 3) is JobState.CANCELLING
    assert at(bench, job, "state", "step", "session") == ("cancelling", "idle", {"handle": "s-1"})
    assert bench.slices(job) == []
    assert bench.kinds(job)[-1] == "cancel_requested"


# --- a claim whose answer was lost ---


def test_a_step_claimed_again_by_its_holder_is_still_his(bench: Bench) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    with bench.db.connection() as tx:
        row = transitions.claim_step(tx, claim, JobState.QUEUED, LEASE, reclaim=True)
        assert row["state"] == "initializing"
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, claim, JobState.QUEUED, LEASE)
        other = bench.claim_of(job, worker=bench.start_worker())
        with pytest.raises(StaleClaim):
            transitions.claim_step(tx, other, JobState.QUEUED, LEASE, reclaim=True)
    assert bench.kinds(job).count("init_claimed") == 1


def test_a_slice_claimed_again_by_its_holder_is_still_his(bench: Bench) -> None:
    job = bench.uploading(1)
    (claim,) = bench.take(job, 0)
    with bench.db.connection() as tx:
        row = transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE, reclaim=True)
        assert row["session"] == {"handle": "s-1"}
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
        other = bench.claim_of(job, 0, worker=bench.start_worker())
        with pytest.raises(StaleClaim):
            transitions.claim_slice(tx, other, low_speed=1, slack=LEASE, reclaim=True)
    bench.checkpoint(claim)
    with bench.db.connection() as tx, pytest.raises(StaleClaim):
        transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE, reclaim=True)


def test_a_claim_that_was_never_granted_is_granted_the_second_time(bench: Bench) -> None:
    job = bench.uploading(1)
    bench.dispatch(job, 0)
    with bench.db.connection() as tx:
        transitions.claim_slice(tx, bench.claim_of(job, 0), low_speed=1, slack=LEASE, reclaim=True)
    assert bench.states(job) == ["sending"]


def test_the_lease_of_a_slice_grows_with_its_size(bench: Bench) -> None:
    job = bench.uploading(2)
    bench.dispatch(job, 0, 1)
    with bench.db.connection() as tx:
        for number in (0, 1):
            transitions.claim_slice(tx, bench.claim_of(job, number), low_speed=2, slack=timedelta(seconds=45))
    leases = [(row["lease_until"] - row["claimed_at"]).total_seconds() for row in bench.slices(job)]
    assert leases == [45 + 10 / 2, 45 + 7 / 2]
