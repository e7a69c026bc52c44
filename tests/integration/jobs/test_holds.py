"""Holds: none of what is held is due, and their time is no time in failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.integration.jobs.database import SOON, UNAVAILABLE, cancel_job, everything, wait_until_blocked
from worker.jobs import aborts, breakers, control, due, holds, transitions
from worker.jobs.api_keys import ApiKey, Scope
from worker.jobs.commands import Acting
from worker.jobs.hold_rows import HoldKind

if TYPE_CHECKING:
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase
    from worker.jobs.due import Held

KEY = ApiKey(uuid4(), "ops", "ops", frozenset({Scope.ADMIN}), datetime.now(UTC))
ACTING = Acting(KEY, person="ann", reason="the network is serviced")
STORE, TENANT, QUEUE = (HoldKind.STORE, "main"), (HoldKind.TENANT, "t"), (HoldKind.QUEUE, "")
ALL = pytest.mark.parametrize("hold", [STORE, TENANT, QUEUE], ids=["store", "tenant", "queue"])


def pause(db: JobsDatabase, hold: tuple[HoldKind, str], *, ago_s: float = 0) -> bool:
    with db.transaction() as tx:
        changed = holds.pause(tx, *hold, ACTING)
    db.run("UPDATE hold SET at = at - make_interval(secs => %s) WHERE kind = %s", ago_s, hold[0])
    return changed


def resume(db: JobsDatabase, hold: tuple[HoldKind, str]) -> bool:
    with db.transaction() as tx:
        return holds.resume(tx, *hold, ACTING)


def held(db: JobsDatabase) -> Held:
    with db.connection() as tx:
        return due.snapshot(tx, whole_bytes=0).held


def failing(db: JobsDatabase, seconds: float, **fields: object) -> UUID:
    """Return a job that has been failing for so long."""
    job = db.uploading(1, **fields)
    (claim,) = db.take(job, 0)
    with db.connection() as tx:
        transitions.release(tx, claim, SOON)
    db.run("UPDATE job SET failing_since = now() - make_interval(secs => %s) WHERE id = %s", seconds, job)
    return job


def failing_s(db: JobsDatabase, job: UUID) -> int:
    [row] = db.run("SELECT extract(epoch FROM now() - failing_since)::float8 AS s FROM job WHERE id = %s", job)
    return round(row["s"] / 10) * 10


@ALL
def test_a_hold_is_a_row_that_the_snapshot_shows(db: JobsDatabase, hold: tuple[HoldKind, str]) -> None:
    assert held(db) == due.NOTHING_HELD
    assert pause(db, hold)
    assert held(db) == due.Held(hold == QUEUE, ["main"] if hold == STORE else [], ["t"] if hold == TENANT else [])
    with db.connection() as tx:
        [found] = holds.list_holds(tx)
    assert (found.kind, found.name, found.reason, found.key_name, found.person) == (
        *hold, "the network is serviced", "ops", "ann",
    )  # fmt: skip
    assert resume(db, hold)
    assert held(db) == due.NOTHING_HELD


@ALL
def test_repeating_it_changes_nothing_but_the_audit(db: JobsDatabase, hold: tuple[HoldKind, str]) -> None:
    job = failing(db, 100)
    pause(db, hold, ago_s=50)
    with db.connection() as tx:
        before = everything(tx), holds.list_holds(tx)
    assert not pause(db, hold)
    with db.connection() as tx:
        assert (everything(tx), holds.list_holds(tx)) == before
    assert resume(db, hold)
    assert failing_s(db, job) == 50
    assert not resume(db, hold)
    assert failing_s(db, job) == 50
    changed = [(row["action"], row["changed"]) for row in db.run("SELECT action, changed FROM audit ORDER BY id")]
    kind = hold[0]
    assert changed == [(f"{kind}.pause", 1), (f"{kind}.pause", 0), (f"{kind}.resume", 1), (f"{kind}.resume", 0)]


def test_of_held_stores_and_tenants_nothing_is_due(db: JobsDatabase) -> None:
    """Neither init, slice nor finish, nor an abort whose store is unusable."""
    jobs = [db.enqueue(), db.uploading(1), db.finishing(), db.uploading(1)]
    with db.connection() as tx:
        cancel_job(tx, jobs[3])
        transitions.promote_due(tx)
        db.run("UPDATE job SET session = NULL WHERE id = %s", jobs[3])
        free = db.enqueue(tenant="other", store="other")

        def found(blocked: list[str], tenants: list[str]) -> set[UUID]:
            steps = due.due_steps(tx, per_lane=9, blocked=blocked, whole_bytes=0, held_tenants=tenants)
            slices = due.due_slices(tx, per_lane=9, window=9, blocked=blocked, held_tenants=tenants)
            return {item.job_id for item in steps + slices}

        assert found([], []) == {*jobs, free}
        assert found(["main"], []) == found([], ["t"]) == {free}
        assert len(aborts.due_aborts(tx, blocked=["main"], known=["main"], most=9)) == 1
        assert aborts.due_aborts(tx, blocked=["main"], known=["main"], most=9, held_tenants=["t"]) == []


@ALL
@pytest.mark.parametrize(
    ("failing_for", "held_for", "left"),
    [(100, 60, 40), (100, 200, 0), (30, 60, 0), (100, 0, 100)],
    ids=["it began before", "it began within", "it began shortly within", "just now"],
)
def test_the_time_of_a_hold_is_no_time_in_failure(
    db: JobsDatabase, hold: tuple[HoldKind, str], failing_for: int, held_for: int, left: int
) -> None:
    job = failing(db, failing_for)
    other, ended = failing(db, 100, store="other", tenant="other"), failing(db, 100)
    db.run("UPDATE job SET state = 'failed', finished_at = now() WHERE id = %s", ended)
    pause(db, hold, ago_s=held_for)
    resume(db, hold)
    assert failing_s(db, job) == left
    assert failing_s(db, other) == (100 if hold != QUEUE else 100 - min(held_for, 100))
    assert failing_s(db, ended) == 100


def test_a_job_that_does_not_fail_has_no_time_in_failure_afterwards(db: JobsDatabase) -> None:
    job = db.uploading(1)
    pause(db, QUEUE, ago_s=100)
    resume(db, QUEUE)
    assert db.row(job)["failing_since"] is None


@pytest.mark.parametrize("first", [0, 1, 2])
def test_time_under_several_holds_counts_once(db: JobsDatabase, first: int) -> None:
    """A job failing for 100 s, held for its last 60 s: by three holds of 60, 40 and 20 s, released in any order."""
    job = failing(db, 100)
    every = [STORE, TENANT, QUEUE]
    for hold, ago_s in zip(every, (60, 40, 20), strict=True):
        pause(db, hold, ago_s=ago_s)
    for hold in every[first:] + every[:first]:
        resume(db, hold)
    assert failing_s(db, job) == 40


@pytest.mark.parametrize("first", ["resume the job", "release the hold"])
def test_a_pause_is_no_time_in_failure_either_and_counts_once_with_a_hold(db: JobsDatabase, first: str) -> None:
    job = failing(db, 100)
    with db.transaction() as tx:
        control.pause(tx, [job], "o", "why")
    db.run("UPDATE job SET paused_at = now() - interval '50 s' WHERE id = %s", job)
    pause(db, TENANT, ago_s=30)
    if first == "release the hold":
        resume(db, TENANT)
    with db.transaction() as tx:
        control.resume(tx, [job], "o")
    if first != "release the hold":
        resume(db, TENANT)
    assert failing_s(db, job) == 50


def test_of_two_releases_at_once_one_waits_for_the_other(db: JobsDatabase) -> None:
    """Each would leave the time that both held to the other."""
    job = failing(db, 100)
    pause(db, STORE, ago_s=60)
    pause(db, TENANT, ago_s=40)
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        holds.resume(stack.enter_context(db.transaction()), *STORE, ACTING)
        waiting = pool.submit(resume, db, TENANT)
        wait_until_blocked(db)
        stack.close()
        assert waiting.result(120)
    assert failing_s(db, job) == 40


def test_a_release_does_not_wait_for_a_job_that_is_locked(db: JobsDatabase) -> None:
    job, locked = failing(db, 100), failing(db, 100)
    pause(db, QUEUE, ago_s=60)
    with db.transaction() as tx:
        tx.execute("SELECT FROM job WHERE id = %s FOR UPDATE", [locked])
        assert resume(db, QUEUE)
    assert failing_s(db, job) == 40


def test_a_breaker_that_closes_under_a_hold_leaves_the_hold(db: JobsDatabase) -> None:
    failing(db, 100)
    with db.transaction() as tx:
        breakers.open_breaker(tx, "main", UNAVAILABLE, 60.0)
    pause(db, STORE)
    with db.transaction() as tx:
        breakers.close_breaker(tx, "main")
    assert held(db).stores == ["main"]


@ALL
def test_what_a_tick_has_chosen_before_the_hold_is_not_dispatched(db: JobsDatabase, hold: tuple[HoldKind, str]) -> None:
    queued, uploading = db.enqueue(), db.uploading(1)
    pause(db, hold)
    with db.connection() as tx:
        assert transitions.dispatch(tx, [queued], [(uploading, 0)]) == []
    resume(db, hold)
    with db.connection() as tx:
        assert len(transitions.dispatch(tx, [queued], [(uploading, 0)])) == 2
