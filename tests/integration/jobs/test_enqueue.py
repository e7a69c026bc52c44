"""A job is inserted once, whatever collides with it, and colliding batches never deadlock."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.jobs.database import LEASE, cancel_job
from worker.db.notify import WAKE_CHANNEL, listen
from worker.jobs import transitions
from worker.jobs.states import JobState

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def enqueued(db: JobsDatabase, *jobs: Any) -> set[UUID]:
    with db.connection() as tx:
        return transitions.enqueue(tx, jobs, "tester")


def test_a_job_is_stored_as_it_was_requested(db: JobsDatabase) -> None:
    job = db.new(
        priority=3, overwrite=True, attributes="a", labels={"order": "17"}, verify="file", slice_size=1024,
        idempotency_key="i", request_digest=b"\x00\xffdigest", traceparent=TRACEPARENT,
    )  # fmt: skip
    assert enqueued(db, job) == {job.id}
    row = db.row(job.id)
    for column in (
        *("id", "tenant", "priority", "source", "store", "key", "target", "overwrite", "attributes", "labels"),
        *("verify", "slice_size", "retry_for_s", "idempotency_key", "request_digest", "traceparent"),
    ):
        assert row[column] == getattr(job, column), column
    assert (row["state"], row["step"], row["epoch"], row["token"]) == ("queued", "pending", 1, 0)
    (event,) = db.events(job.id)
    assert (event["kind"], event["from_state"], event["to_state"]) == ("enqueued", None, "queued")
    assert event["actor"] == "tester"


@pytest.mark.parametrize("traceparent", [None, TRACEPARENT])
def test_whatever_is_dispatched_of_a_job_has_its_trace(db: JobsDatabase, traceparent: str | None) -> None:
    job = db.enqueue(traceparent=traceparent)
    dispatched = db.dispatch(job)
    with db.connection() as tx:
        assert transitions.redispatch(tx) == dispatched
        transitions.claim_step(tx, db.claim_of(job), JobState.QUEUED, LEASE)
    db.open(db.claim_of(job), 2)
    dispatched += db.dispatch(job, 0, 1)
    with db.connection() as tx:
        again = transitions.redispatch(tx)
    assert [item.number for item in dispatched] == [None, 0, 1]
    assert {item.traceparent for item in dispatched + again} == {traceparent}


def test_the_dispatcher_is_notified_at_the_commit(db: JobsDatabase) -> None:
    listener = listen(db.url)
    with db.transaction() as tx:
        transitions.enqueue(tx, [db.new()], "tester")
        assert list(listener.notifies(timeout=0)) == []
    (notification,) = listener.notifies(timeout=120, stop_after=1)
    assert notification.channel == WAKE_CHANNEL
    listener.close()


def test_a_live_job_keeps_others_from_its_target_and_a_finished_one_does_not(db: JobsDatabase) -> None:
    first, second, third = (db.new(key="k", tenant=tenant) for tenant in ("a", "b", "b"))
    assert enqueued(db, first) == {first.id}
    assert enqueued(db, second) == set()
    with db.connection() as tx:
        cancel_job(tx, first.id)
    assert enqueued(db, third) == {third.id}
    assert db.events(second.id) == []


def test_an_idempotency_key_makes_one_job_a_tenant_for_ever(db: JobsDatabase) -> None:
    first = db.new(tenant="a", idempotency_key="i")
    repeated, others = db.new(tenant="a", idempotency_key="i"), db.new(tenant="b", idempotency_key="i")
    assert enqueued(db, first) == {first.id}
    with db.connection() as tx:
        cancel_job(tx, first.id)
    assert enqueued(db, repeated, others) == {others.id}


def test_a_batch_that_collides_with_itself_is_made_once(db: JobsDatabase) -> None:
    jobs = [
        db.new(key="same"),
        db.new(key="same"),
        db.new(idempotency_key="i"),
        db.new(idempotency_key="i"),
    ]
    assert len(enqueued(db, *jobs)) == 2


def test_what_collides_drops_out_alone(db: JobsDatabase) -> None:
    enqueued(db, db.new(key="k1"), db.new(key="k2", idempotency_key="i"))
    batch = [db.new(key="k1"), db.new(idempotency_key="i"), db.new(), db.new(key="k1", idempotency_key="i")]
    assert enqueued(db, *batch) == {batch[2].id}


def test_a_thousand_jobs_are_one_statement(db: JobsDatabase) -> None:
    jobs = [db.new() for _ in range(1000)]
    assert len(enqueued(db, *jobs)) == 1000
    assert db.run("SELECT count(*) AS n FROM event WHERE kind = 'enqueued'")[0]["n"] == 1000


@pytest.mark.parametrize("collide_on", ["target", "idempotency_key", "both"])
def test_batches_that_collide_in_opposite_orders_do_not_deadlock(db: JobsDatabase, collide_on: str) -> None:
    rounds, size, threads = 6, 300, 4
    barrier = threading.Barrier(threads, timeout=60)

    def submit(number: int) -> list[set[UUID]]:
        chance, ids = random.Random(number), []
        for round_number in range(rounds):
            names = [f"{round_number}/{place}" for place in range(size)]
            keys, idempotency_keys = chance.sample(names, size), chance.sample(names, size)
            batch = [
                db.new(
                    **({"key": key} if collide_on != "idempotency_key" else {}),
                    **({"idempotency_key": unique} if collide_on != "target" else {}),
                )
                for key, unique in zip(keys, idempotency_keys, strict=True)
            ]
            barrier.wait()
            try:
                ids.append(enqueued(db, *batch))
            except Exception:
                barrier.abort()
                raise
        return ids

    with ThreadPoolExecutor(threads) as pool:
        of_threads = list(pool.map(submit, range(threads)))
    for round_number in range(rounds):
        total = sum(len(ids[round_number]) for ids in of_threads)
        assert total == size if collide_on != "both" else 0 < total <= size
