"""Concurrent actors on the same jobs: no deadlock, no double count, and no job that cannot end."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.jobs.database import ERROR, LEASE, SLICE_BYTES, cancel_job, opened_session, retry_job
from worker.db.pool import conninfo
from worker.errors import Conflict, StaleClaim
from worker.jobs import control, transitions
from worker.jobs.leases import Acknowledged, Claim, Deferral
from worker.jobs.states import JobState, SliceState, Step

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase

JOBS, SLICES, ACTORS, ACTIONS, MAX_S = 5, 40, 6, 500, 10.0


class Actor:
    """A worker process, dispatcher and operator in one, which chooses its next action at random."""

    def __init__(self, db: JobsDatabase, seed: int, *, harm: bool = True) -> None:
        self.db, self.chance, self.harm = db, random.Random(seed), harm
        self.worker = db.start_worker()
        self.held: list[Claim] = []

    def act(self) -> None:
        """Perform one action; the state table may refuse it."""
        usual = [self.dispatch, self.claim, self.claim, self.checkpoint, self.checkpoint, self.step, self.step]
        rare = [self.defer, self.fail, self.lose_session, self.expire, self.rescue, self.retry, self.cancel]
        rare += [self.pause, self.lose_message]
        often = self.chance.random() < 0.85 or not self.harm
        action = self.chance.choice(usual if often else rare)
        with suppress(StaleClaim, Conflict), self.db.connection() as tx:
            action(tx)

    def sample(self, rows: list[Any], limit: int) -> list[Any]:
        return self.chance.sample(rows, min(len(rows), self.chance.randint(1, limit)))

    def jobs(self, *states: JobState) -> list[UUID]:
        rows = self.db.run("SELECT id FROM job WHERE state = ANY(%s)", [str(state) for state in states])
        return [row["id"] for row in rows]

    def in_state(self, state: SliceState) -> list[Any]:
        return self.db.run(
            """SELECT s.job_id, s.number, s.token, j.epoch FROM slice s JOIN job j ON j.id = s.job_id
               WHERE s.state = %s""",
            state,
        )

    def dispatch(self, tx: Any) -> None:
        transitions.promote_due(tx)
        pending = self.sample(self.in_state(SliceState.PENDING), 24)
        steps = self.db.run("SELECT id FROM job WHERE step = 'pending'")
        transitions.dispatch(tx, [row["id"] for row in steps], [(row["job_id"], row["number"]) for row in pending])

    def claim(self, tx: Any) -> None:
        for row in self.sample(self.in_state(SliceState.DISPATCHED), 8):
            claim = Claim(row["job_id"], row["number"], row["token"], row["epoch"], self.worker)
            with suppress(StaleClaim):
                transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)
                self.held.append(claim)

    def checkpoint(self, tx: Any) -> None:
        self.chance.shuffle(self.held)
        batch = [self.held.pop() for _ in range(min(len(self.held), self.chance.randint(1, 8)))]
        for _ in range(self.chance.randint(1, 2)):  # the same batch may be sent twice
            transitions.checkpoint(tx, [Acknowledged(claim, "t", None) for claim in batch], self.worker)

    def defer(self, tx: Any) -> None:
        if self.held:
            transitions.release(tx, self.held.pop(), Deferral(timedelta(0), ERROR, attempt=True))

    def fail(self, tx: Any) -> None:
        if self.held:
            transitions.fail(tx, self.held.pop(), ERROR)

    def lose_session(self, tx: Any) -> None:
        if self.held:
            transitions.new_epoch(tx, self.held.pop(), ERROR, None)

    def expire(self, _: Any) -> None:
        if self.held:
            claim = self.chance.choice(self.held)
            self.db.run(
                "UPDATE slice SET lease_until = now() WHERE job_id = %s AND number = %s AND state = 'sending'",
                *(claim.job_id, claim.number),
            )

    def rescue(self, tx: Any) -> None:
        transitions.rescue(tx)

    def retry(self, tx: Any) -> None:
        for job in self.jobs(JobState.FAILED, JobState.CANCELLED, JobState.QUEUED, JobState.UPLOADING):
            with tx.transaction():
                retry_job(tx, job)

    def cancel(self, tx: Any) -> None:
        if self.chance.random() < 0.3:
            cancel_job(tx, self.chance.choice(self.jobs(*JobState)))

    def pause(self, tx: Any) -> None:
        control.pause(tx, [self.chance.choice(self.jobs(*JobState))], "o", "why")

    def lose_message(self, tx: Any) -> None:
        transitions.redispatch(tx)

    def step(self, tx: Any) -> None:
        """Claim a job's step and perform it."""
        rows = self.db.run("SELECT id, state, token, epoch FROM job WHERE step = 'dispatched'")
        for row in self.sample(rows, 1) if rows else []:
            claim = Claim(row["id"], None, row["token"], row["epoch"], self.worker)
            job = transitions.claim_step(tx, claim, JobState(row["state"]), LEASE)
            if job.state == JobState.CANCELLING:
                transitions.cancelled(tx, claim, None)
            elif job.state == JobState.FINISHING:
                self.finish(tx, claim)
            elif job.session is None:
                self.open(tx, claim)
            else:
                done = self.db.run("SELECT number FROM slice WHERE job_id = %s AND state = 'done'", job.id)
                transitions.reconcile(tx, claim, [row["number"] for row in done])

    def finish(self, tx: Any, claim: Claim) -> None:
        if self.harm and self.chance.random() < 0.5:
            transitions.reconcile(tx, claim, self.chance.sample(range(SLICES), SLICES - 3))
        else:
            transitions.succeed(tx, claim, {"proof": "mark"})

    def open(self, tx: Any, claim: Claim) -> None:
        transitions.open_session(tx, claim, opened_session(SLICES * SLICE_BYTES))


def watch(url: str, ended: threading.Event) -> list[Any]:
    """Poll snapshots until the end; return every row with a wrong countdown."""
    wrong: list[Any] = []
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        while not ended.wait(0.02):
            wrong += connection.execute(
                """SELECT j.id, j.state, j.slices_left, count(s.*) FILTER (WHERE s.state <> 'done') AS left
                   FROM job j LEFT JOIN slice s ON s.job_id = j.id WHERE j.state = 'uploading' GROUP BY j.id
                   HAVING j.slices_left <> count(s.*) FILTER (WHERE s.state <> 'done') OR j.slices_left = 0"""
            ).fetchall()
    return wrong


@pytest.mark.parametrize("seed", [1, 2])
def test_concurrent_actors_never_deadlock_and_always_add_up(db: JobsDatabase, seed: int) -> None:
    jobs = [db.enqueue() for _ in range(JOBS)]
    until, ended = time.monotonic() + MAX_S, threading.Event()

    def work(actor: Actor) -> int:
        done = 0
        while done < ACTIONS and time.monotonic() < until:
            actor.act()
            done += 1
        return done

    with ThreadPoolExecutor(ACTORS + 1) as pool:
        watcher = pool.submit(watch, db.url, ended)
        try:
            done = list(pool.map(work, [Actor(db, seed * 100 + number) for number in range(ACTORS)]))
        finally:
            ended.set()
        assert watcher.result() == []
    assert sum(done) > ACTORS * 20
    assert_history_adds_up(db)
    bring_to_an_end(db, jobs)
    assert_history_adds_up(db)


def assert_history_adds_up(db: JobsDatabase) -> None:
    """Each history follows the states, and a countdown ends once between two entries into `uploading`."""
    for job in db.run("SELECT id, state FROM job"):
        state, epochs_done = None, set()
        for event in db.events(job["id"]):
            if event["from_state"] is None and event["to_state"] is None:
                continue
            assert event["from_state"] == state, event
            state = event["to_state"]
            if event["kind"] in {"session_opened", "slices_missing"}:
                epochs_done.discard(event["epoch"])
            if event["kind"] == "slices_done":
                assert event["epoch"] not in epochs_done
                epochs_done.add(event["epoch"])
        assert job["state"] == state


def bring_to_an_end(db: JobsDatabase, jobs: list[UUID]) -> None:
    """Run without faults until every job has succeeded, and check its bytes."""
    db.run("UPDATE worker SET ended_at = now(), \"end\" = 'stopped'")
    actor = Actor(db, 1, harm=False)
    until = time.monotonic() + 60
    while db.run("SELECT id FROM job WHERE state <> 'succeeded'"):
        assert time.monotonic() < until, db.run("SELECT state, step, slices_left, error FROM job")
        with db.connection() as tx:
            for act in (actor.rescue, actor.retry, actor.dispatch, actor.claim, actor.checkpoint):
                act(tx)
            with suppress(StaleClaim):
                actor.step(tx)
    for job in jobs:
        row = db.row(job)
        assert (row["step"], row["slices_left"], row["bytes_done"]) == (Step.IDLE, 0, SLICES * 10)
        assert row["result"]["slices"]["slices"] == SLICES
    assert db.run("SELECT job_id FROM slice") == []


def test_last_slices_that_end_together_are_not_missed(db: JobsDatabase) -> None:
    """Several threads each record one of the last slices of several jobs: exactly one moves each job on."""
    threads, jobs = 4, [db.uploading(4) for _ in range(12)]
    claims = {job: db.take(job, *range(4)) for job in jobs}
    together = threading.Barrier(threads, timeout=60)

    def end(number: int) -> list[Any]:
        mine = [claims[job][number] for job in jobs]
        random.Random(number).shuffle(mine)
        together.wait()
        return [(claim.job_id, done.slices_left) for claim in mine for done in db.checkpoint(claim).values()]

    with ThreadPoolExecutor(threads) as pool:
        recorded = [one for each in pool.map(end, range(threads)) for one in each]
    for job in jobs:
        assert sorted(left for done_of, left in recorded if done_of == job) == [0, 1, 2, 3]
        assert db.row(job)["state"] == JobState.FINISHING
        assert db.kinds(job).count("slices_done") == 1


def test_the_same_batch_again_is_success_and_counts_nothing(db: JobsDatabase) -> None:
    job, other = db.uploading(3), db.uploading(3)
    claims = [*db.take(job, 0, 1), *db.take(other, 2)]
    assert len(db.checkpoint(*claims)) == 3
    repeated = db.checkpoint(*claims)
    assert {(row.state, row.slices_left) for row in repeated.values()} == {(None, None)}
    assert repeated.keys() == {(claim.job_id, claim.number, claim.token) for claim in claims}
    assert (db.row(job)["slices_left"], db.row(other)["slices_left"]) == (1, 2)
    assert db.row(job)["bytes_done"] == 20


def test_a_batch_that_was_partly_recorded_records_the_rest(db: JobsDatabase) -> None:
    job = db.uploading(3)
    claims = db.take(job, 0, 1)
    db.checkpoint(claims[0])
    recorded = db.checkpoint(*claims)
    assert len(recorded) == 2
    assert db.row(job)["slices_left"] == 1


def test_a_stale_row_drops_out_of_its_batch_alone(db: JobsDatabase) -> None:
    job, lost = db.uploading(3), db.uploading(3)
    good, stale = db.take(job, 0)[0], db.take(lost, 0)[0]
    with db.connection() as tx:
        transitions.new_epoch(tx, db.take(lost, 1)[0], ERROR, None)
    assert db.checkpoint(good, stale).keys() == {(job, 0, good.token)}
    assert db.states(job) == ["done", "pending", "pending"]


def test_an_old_and_a_new_claim_of_one_slice_in_one_batch_are_distinguished(db: JobsDatabase) -> None:
    job = db.uploading(2)
    (old,) = db.take(job, 0)
    with db.connection() as tx:
        transitions.release(tx, old, Deferral(None, None))
    (new,) = db.take(job, 0)
    assert db.checkpoint(old, new).keys() == {(job, 0, new.token)}
