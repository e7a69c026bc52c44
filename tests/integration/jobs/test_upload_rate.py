"""The upload rate of a job: over the last seconds, from finished slices and the workers' reports of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.jobs import queries, workers
from worker.runtime.sending_report import Entry

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase


def heartbeat(db: JobsDatabase, sending: list[dict[str, Any]]) -> None:
    """Report as the worker what it sends."""
    with db.connection() as tx:
        assert workers.heartbeat(tx, db.worker, slots=4, roots=[], claimed_through=None, sending=sending)


def done_slices(db: JobsDatabase, job: UUID, took: dict[int, tuple[float, float]]) -> None:
    """Mark slices as done that were claimed and recorded so many seconds ago."""
    for number, (claimed_s, done_s) in took.items():
        db.run(
            """UPDATE slice SET state = 'done', claimed_at = now() - make_interval(secs => %s),
                 done_at = now() - make_interval(secs => %s) WHERE job_id = %s AND number = %s""",
            *(claimed_s, done_s, job, number),
        )


def slices_of(db: JobsDatabase, count: int, size_bytes: int) -> UUID:
    """Enqueue a job that uploads slices of this size."""
    job = db.uploading(count)
    db.run("UPDATE slice SET size_bytes = %s WHERE job_id = %s", size_bytes, job)
    return job


def near(rate: int, expected: float) -> bool:
    """Return whether a rate is the expected one, less the time that the statements took."""
    return expected * 0.5 <= rate <= expected * 1.05


def test_the_rate_is_that_of_the_last_seconds(db: JobsDatabase) -> None:
    job = slices_of(db, 8, 1_000_000)
    done_slices(db, job, {0: (300, 290), 1: (40, 20), 2: (20, 0), 3: (10, 0)})
    assert near(queries.upload_rate(db.pool, job), 150_000)


def test_what_is_in_flight_counts_for_the_rate(db: JobsDatabase) -> None:
    job = slices_of(db, 8, 1_000_000)
    first, second = db.take(job, 0, 1)
    sending = [
        Entry(first, 600_000, 1_000_000, since_s=0.0).document(now_s=20.0),
        Entry(second, 200_000, 1_000_000, since_s=0.0).document(now_s=4.0),
    ]
    heartbeat(db, sending)
    assert near(queries.upload_rate(db.pool, job), 50_000)


def test_a_job_that_stands_still_has_no_rate(db: JobsDatabase) -> None:
    job = slices_of(db, 8, 1_000_000)
    (claim,) = db.take(job, 3)
    heartbeat(db, [Entry(claim, 900_000, 1_000_000, since_s=0.0).document(now_s=1.0)])
    done_slices(db, job, {0: (60, 50), 1: (50, 40)})
    db.run("UPDATE worker SET heartbeat_at = now() - interval '30 s'")
    assert queries.upload_rate(db.pool, job) == 0


def test_what_the_store_had_already_counts_for_no_rate(db: JobsDatabase) -> None:
    job = db.uploading(8, held=[0, 1, 2, 3])
    assert queries.upload_rate(db.pool, job) == 0


def test_the_rate_of_a_large_file_reads_its_latest_slices_only(db: JobsDatabase) -> None:
    """The rate reads the slices just before the highest in flight, so its cost does not grow with the file."""
    job = slices_of(db, 2000, 1000)
    db.run("UPDATE slice SET state = 'done', claimed_at = now() - interval '2 s', done_at = now() WHERE number < 1500")
    db.take(job, 1500)
    assert near(queries.upload_rate(db.pool, job), queries.RATE_MOST_SLICES * 1000 / 2)


def test_a_file_sent_in_one_request_has_a_rate(db: JobsDatabase) -> None:
    job = db.enqueue()
    (claim,) = db.take(job)
    heartbeat(db, [Entry(claim, 40_000, 1_000_000, since_s=0.0).document(now_s=1.0)])
    assert queries.upload_rate(db.pool, job) == 40_000
