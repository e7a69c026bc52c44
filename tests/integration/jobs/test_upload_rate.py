"""How fast a job is shown to be: over the last seconds, by what is done and by what is reported of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.jobs import queries, workers
from worker.runtime.sending_report import Entry

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.bench import Bench


def beat(bench: Bench, sending: list[dict[str, Any]]) -> None:
    """Have the worker report what it sends."""
    with bench.db.connection() as tx:
        assert workers.heartbeat(tx, bench.worker, slots=4, roots=[], claimed_through=None, sending=sending)


def done_slices(bench: Bench, job: UUID, took: dict[int, tuple[float, float]]) -> None:
    """Have slices be done that were claimed and recorded so many seconds ago."""
    for number, (claimed_s, done_s) in took.items():
        bench.run(
            """UPDATE slice SET state = 'done', claimed_at = now() - make_interval(secs => %s),
                 done_at = now() - make_interval(secs => %s) WHERE job_id = %s AND number = %s""",
            *(claimed_s, done_s, job, number),
        )


def slices_of(bench: Bench, count: int, size_bytes: int) -> UUID:
    """Bring a job to where it uploads slices of this size."""
    job = bench.uploading(count)
    bench.run("UPDATE slice SET size_bytes = %s WHERE job_id = %s", size_bytes, job)
    return job


def near(rate: int, expected: float) -> bool:
    """Say whether a rate is what was expected, but for the time that the statements took."""
    return expected * 0.5 <= rate <= expected * 1.05


def test_the_rate_is_that_of_the_last_seconds(bench: Bench) -> None:
    job = slices_of(bench, 8, 1_000_000)
    done_slices(bench, job, {0: (300, 290), 1: (40, 20), 2: (20, 0), 3: (10, 0)})
    assert near(queries.upload_rate(bench.db, job), 150_000)


def test_what_is_in_flight_counts_for_the_rate(bench: Bench) -> None:
    job = slices_of(bench, 8, 1_000_000)
    first, second = bench.take(job, 0, 1)
    sending = [
        Entry(first, 600_000, 1_000_000, since_s=0.0).row(now_s=20.0),
        Entry(second, 200_000, 1_000_000, since_s=0.0).row(now_s=4.0),
    ]
    beat(bench, sending)
    assert near(queries.upload_rate(bench.db, job), 50_000)


def test_a_job_that_stands_still_has_no_rate(bench: Bench) -> None:
    job = slices_of(bench, 8, 1_000_000)
    (claim,) = bench.take(job, 3)
    beat(bench, [Entry(claim, 900_000, 1_000_000, since_s=0.0).row(now_s=1.0)])
    done_slices(bench, job, {0: (60, 50), 1: (50, 40)})
    bench.run("UPDATE worker SET heartbeat_at = now() - interval '30 s'")
    assert queries.upload_rate(bench.db, job) == 0


def test_what_the_store_had_already_counts_for_no_rate(bench: Bench) -> None:
    job = bench.uploading(8, held=[0, 1, 2, 3])
    assert queries.upload_rate(bench.db, job) == 0


def test_the_rate_of_a_large_file_reads_its_latest_slices_only(bench: Bench) -> None:
    """Those before the highest in flight; the rest of the file is older, and would take the longer the larger it is."""
    job = slices_of(bench, 2000, 1000)
    bench.run(
        "UPDATE slice SET state = 'done', claimed_at = now() - interval '2 s', done_at = now() WHERE number < 1500"
    )
    bench.take(job, 1500)
    assert near(queries.upload_rate(bench.db, job), queries.RATE_MOST_SLICES * 1000 / 2)


def test_a_file_sent_in_one_request_has_a_rate(bench: Bench) -> None:
    job = bench.enqueue()
    (claim,) = bench.take(job)
    beat(bench, [Entry(claim, 40_000, 1_000_000, since_s=0.0).row(now_s=1.0)])
    assert queries.upload_rate(bench.db, job) == 40_000
