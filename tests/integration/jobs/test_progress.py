"""The progress of a job: by the reports of the workers, and never less than before."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from tests.integration.jobs.database import AT_ONCE, ERROR, SLICE_BYTES, retry_job
from worker.jobs import queries, transitions, workers
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.leases import Claim, Deferral
from worker.jobs.states import JobState
from worker.runtime.sending_report import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection

FAILED = Deferral(None, ERROR, attempt=True)
READER = ApiKey(uuid4(), "reader", "t", frozenset({Scope.READ}), datetime.now(UTC))
WHOLE_BYTES = 100


class Progress(NamedTuple):
    """A job's bytes: done and in flight together, in flight, and of these the ones being sent now."""

    bytes: int
    in_flight: int
    live: int


def progress(db: JobsDatabase, job: UUID) -> Progress:
    row = queries.find_job(db.pool, job, READER)
    in_flight = queries.in_flight(row)
    return Progress(row.bytes_done + in_flight.bytes, in_flight.bytes, in_flight.live_bytes)


def report(db: JobsDatabase, acked: dict[Claim, int], *, size: int = SLICE_BYTES, worker: UUID | None = None) -> None:
    """Report as a worker so many bytes of each claim, all begun a second ago."""
    sending = [Entry(claim, count, size, since_s=0.0).document(now_s=1.0) for claim, count in acked.items()]
    with db.connection() as tx:
        assert workers.heartbeat(
            tx, worker or db.worker, slots=4, roots=[], claimed_through=None, sending=sending or None
        )


def moved(db: JobsDatabase, write: Callable[[Connection], Any]) -> Any:
    with db.connection() as tx:
        return write(tx)


# --- which reports count ---


def test_acknowledged_bytes_of_claims_that_are_held_are_in_flight(db: JobsDatabase) -> None:
    job, other = db.uploading(4), db.uploading(2)
    first, second = db.take(job, 0, 1)
    (theirs,) = db.take(other, 0)
    report(db, {first: 4, second: 10, theirs: 7})
    assert progress(db, job) == (14, 14, 14)
    assert progress(db, other) == (7, 7, 7)
    report(db, {})
    assert progress(db, job) == (0, 0, 0)


def test_reports_of_several_workers_add_up(db: JobsDatabase) -> None:
    job, worker = db.uploading(4), db.start_worker()
    (ours,) = db.take(job, 0)
    (theirs,) = db.take(job, 1, worker=worker)
    report(db, {ours: 3})
    report(db, {theirs: 5}, worker=worker)
    assert progress(db, job).in_flight == 8


@pytest.mark.parametrize("change", [{"token": 99}, {"number": 1}, {"number": None}, {"job_id": UUID(int=1)}], ids=str)
def test_a_report_of_another_claim_does_not_count(db: JobsDatabase, change: dict[str, Any]) -> None:
    job = db.uploading(3)
    (claim,) = db.take(job, 0)
    named = {name: getattr(claim, name) for name in ("job_id", "number", "token", "epoch", "worker")}
    report(db, {Claim(**named | change): 5})
    assert progress(db, job) == (0, 0, 0)


def test_a_report_of_another_worker_does_not_count(db: JobsDatabase) -> None:
    job, worker = db.uploading(3), db.start_worker()
    (claim,) = db.take(job, 0)
    report(db, {claim: 5}, worker=worker)
    assert progress(db, job) == (0, 0, 0)


def test_no_more_counts_than_the_slice_is_long(db: JobsDatabase) -> None:
    """A request is longer than its content, and the last slice (of 7 bytes here) than others."""
    job = db.uploading(2)
    first, last = db.take(job, 0, 1)
    report(db, {first: 400, last: 400})
    assert progress(db, job).in_flight == SLICE_BYTES + SLICE_BYTES - 3


def test_a_checkpoint_counts_no_byte_twice(db: JobsDatabase) -> None:
    job = db.uploading(3)
    first, second = db.take(job, 0, 1)
    report(db, {first: 9, second: 4})
    db.checkpoint(first)  # the worker has not reported since
    assert progress(db, job) == (10 + 4, 4, 4)


def test_a_dead_worker_counts_until_its_claims_are_taken_back(db: JobsDatabase) -> None:
    job = db.uploading(3)
    report(db, dict.fromkeys(db.take(job, 0), 6))
    db.end_worker(db.worker)
    assert progress(db, job) == (6, 6, 6)
    moved(db, transitions.rescue)
    assert progress(db, job) == (6, 6, 0)


def test_the_size_of_a_file_sent_in_one_request_is_in_the_report(db: JobsDatabase) -> None:
    job = db.enqueue()
    report(db, dict.fromkeys(db.take(job), 40), size=WHOLE_BYTES)
    assert queries.in_flight(queries.find_job(db.pool, job, READER)) == (WHOLE_BYTES, 40, 40)


@pytest.mark.parametrize("end", ["released", "rescued"])
def test_a_file_sent_in_one_request_has_its_size_while_it_waits_to_be_sent_again(db: JobsDatabase, end: str) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    report(db, {claim: 40}, size=WHOLE_BYTES)
    if end == "released":
        release = {"sent_bytes": 40, "size_bytes": WHOLE_BYTES}
        moved(db, lambda tx: transitions.release(tx, claim, FAILED, **release))
    else:
        db.end_worker(db.worker)
        moved(db, transitions.rescue)
    row = queries.find_job(db.pool, job, READER)
    assert row.state == JobState.QUEUED
    assert queries.in_flight(row) == (WHOLE_BYTES, 0, 40)


def test_the_size_of_a_slice_is_not_that_of_the_file(db: JobsDatabase) -> None:
    job = db.uploading(3)
    before = db.row(job)["size_bytes"]
    (claim,) = db.take(job, 0)
    moved(db, lambda tx: transitions.release(tx, claim, AT_ONCE, size_bytes=SLICE_BYTES))
    assert db.row(job)["size_bytes"] == before


def test_a_page_of_jobs_has_the_same(db: JobsDatabase) -> None:
    jobs = [db.uploading(3) for _ in range(3)]
    report(db, {claim: 2 + place for place, job in enumerate(jobs) for claim in db.take(job, 0)})
    page = queries.list_jobs(db.pool, queries.Filter(), after=None, limit=2)
    assert [(row.id, queries.in_flight(row).bytes) for row in page.rows] == [(jobs[2], 4), (jobs[1], 3)]
    assert page.more


# --- progress never falls ---

GIVEN_BACK: dict[str, Callable[[JobsDatabase, Claim], Any]] = {
    "released": lambda b, c: moved(b, lambda tx: transitions.release(tx, c, AT_ONCE, sent_bytes=6)),
    "released with an error": lambda b, c: moved(b, lambda tx: transitions.release(tx, c, FAILED, sent_bytes=6)),
    "failed": lambda b, c: moved(b, lambda tx: transitions.fail(tx, c, ERROR, sent_bytes=6)),
    "died": lambda b, c: (b.end_worker(c.worker), moved(b, transitions.rescue)),
    "lease ended": lambda b, c: (
        b.run("UPDATE slice SET lease_until = now() - interval '1 s' WHERE state = 'sending' AND token = %s", c.token),
        b.run("UPDATE job SET lease_until = now() - interval '1 s' WHERE step = 'running'"),
        moved(b, transitions.rescue),
    ),
}


@pytest.mark.parametrize("how", GIVEN_BACK)
def test_a_slice_given_back_keeps_what_was_acknowledged(db: JobsDatabase, how: str) -> None:
    job = db.uploading(3)
    db.checkpoint(*db.take(job, 1))
    (claim,) = db.take(job, 0)
    report(db, {claim: 6})
    GIVEN_BACK[how](db, claim)
    assert progress(db, job) == (16, 6, 0)
    if how == "failed":
        moved(db, lambda tx: retry_job(tx, job))
        (init,) = db.take(job)
        moved(db, lambda tx: transitions.reconcile(tx, init, [1]))
        assert progress(db, job) == (16, 6, 0)
    worker = db.start_worker()
    (second,) = db.take(job, 0, worker=worker)
    assert progress(db, job) == (16, 6, 0)
    report(db, {second: 4}, worker=worker)
    assert progress(db, job) == (16, 6, 4)  # the same bytes are sent a second time: no progress yet
    report(db, {second: 8}, worker=worker)
    assert progress(db, job) == (18, 8, 8)
    db.checkpoint(second)
    assert progress(db, job) == (20, 0, 0)


def test_a_slice_of_a_job_that_has_failed_keeps_what_was_acknowledged(db: JobsDatabase) -> None:
    job = db.uploading(3)
    first, second = db.take(job, 0, 1)
    report(db, {first: 6, second: 3})
    moved(db, lambda tx: transitions.fail(tx, first, ERROR, sent_bytes=6))
    assert progress(db, job) == (9, 9, 3)
    assert moved(db, lambda tx: transitions.fail(tx, second, ERROR, sent_bytes=3)) is JobState.FAILED
    assert progress(db, job) == (9, 9, 0)


@pytest.mark.parametrize("how", [how for how in GIVEN_BACK if how != "failed"])
def test_a_file_sent_in_one_request_keeps_what_was_acknowledged(db: JobsDatabase, how: str) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    report(db, {claim: 6}, size=WHOLE_BYTES)
    GIVEN_BACK[how](db, claim)
    assert progress(db, job) == (6, 6, 0)
    worker = db.start_worker()
    (second,) = db.take(job, worker=worker)
    report(db, {second: 2}, size=WHOLE_BYTES, worker=worker)
    assert progress(db, job) == (6, 6, 2)
    report(db, {second: 30}, size=WHOLE_BYTES, worker=worker)
    assert progress(db, job) == (30, 30, 30)
    moved(db, lambda tx: transitions.succeed(tx, second, {"size_bytes": WHOLE_BYTES}))
    assert progress(db, job) == (WHOLE_BYTES, 0, 0)


def test_slices_that_the_store_has_lost_are_sent_again_and_nothing_falls(db: JobsDatabase) -> None:
    job = db.finishing(3)
    before = progress(db, job)
    (finish,) = db.take(job)
    assert moved(db, lambda tx: transitions.reconcile(tx, finish, [0])).missing == 2
    assert progress(db, job) == (before.bytes, before.bytes - SLICE_BYTES, 0)
    db.checkpoint(*db.take(job, 1, 2))
    assert progress(db, job) == (before.bytes, 0, 0)


def test_a_new_epoch_begins_with_nothing(db: JobsDatabase) -> None:
    job = db.uploading(3)
    first, second = db.take(job, 0, 1)
    report(db, {first: 6, second: 3})
    moved(db, lambda tx: transitions.release(tx, first, AT_ONCE, sent_bytes=6))
    moved(db, lambda tx: transitions.new_epoch(tx, second, ERROR, None))
    assert progress(db, job) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_nothing_falls_within_an_epoch(db: JobsDatabase, seed: int) -> None:
    """In random order, workers report, fail, die and record, and the store loses slices."""
    chance = random.Random(seed)
    job, slices = db.uploading(6), 6
    acked: dict[Claim, int] = {}
    highest = 0
    for _ in range(60):
        match chance.choice(["take", "grow", "grow", "release", "checkpoint", "die"]):
            case "take":
                pending = [row["number"] for row in db.slices(job) if row["state"] == "pending"]
                if pending:
                    acked |= dict.fromkeys(db.take(job, chance.choice(pending), worker=db.worker), 0)
            case "grow" if acked:
                acked = {claim: min(SLICE_BYTES, count + chance.randrange(5)) for claim, count in acked.items()}
                report(db, acked)
            case "release" if acked:
                claim = chance.choice(list(acked))
                sent = acked.pop(claim)
                deferral = chance.choice([AT_ONCE, FAILED])
                moved(db, lambda tx, c=claim, d=deferral, s=sent: transitions.release(tx, c, d, sent_bytes=s))
            case "checkpoint" if len(acked) > 0 and db.row(job)["slices_left"] > 1:
                claim = chance.choice(list(acked))
                del acked[claim]
                db.checkpoint(claim)
            case "die":
                db.end_worker(db.worker)
                assert progress(db, job).bytes >= highest
                moved(db, transitions.rescue)
                acked, db.worker = {}, db.start_worker()
        now = progress(db, job)
        assert highest <= now.bytes <= slices * SLICE_BYTES - 3
        highest = now.bytes
        marks = sum(row["sent_bytes"] or 0 for row in db.slices(job) if row["state"] != "done")
        assert (db.row(job)["sent_bytes"] or 0) == marks
