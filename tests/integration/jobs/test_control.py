"""Cancel, retry, pause and resume of sets of jobs: one result a job, and a refused one stops none of the others."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import psycopg
import pytest

from tests.integration.jobs.database import ERROR, LEASE, UNAVAILABLE, cancel_job, everything, wait_until_blocked
from worker.db.notify import WAKE_CHANNEL, listen
from worker.errors import Conflict
from worker.jobs import control, transitions
from worker.jobs.leases import Deferral
from worker.jobs.states import JobState, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection
    from worker.jobs.command_results import CommandResult
    from worker.jobs.rows import RetriedJob

COMMANDS: dict[str, Callable[..., list[CommandResult]]] = {
    "cancel": lambda tx, jobs, **kwargs: control.cancel(tx, jobs, "o", **kwargs),
    "pause": lambda tx, jobs, **kwargs: control.pause(tx, jobs, "o", "why", **kwargs),
    "resume": lambda tx, jobs, **kwargs: control.resume(tx, jobs, "o", **kwargs),
    "retry": lambda tx, jobs, **kwargs: control.retry(tx, jobs, "o", **kwargs),
}


def outcome(result: CommandResult) -> str:
    """Return the new state, or the code of the refusal."""
    if result.refusal is None:
        return str(result.state)
    assert (result.state, result.changed) == (None, False)
    return result.refusal.code


def outcomes(results: list[CommandResult]) -> list[str]:
    return [outcome(result) for result in results]


def run(db: JobsDatabase, command: str, jobs: list[UUID], **kwargs: Any) -> list[CommandResult]:
    with db.transaction() as tx:
        return COMMANDS[command](tx, jobs, **kwargs)


def ended(db: JobsDatabase, state: JobState = JobState.FAILED, **fields: Any) -> UUID:
    """Return a job that has ended, with a session and without slices."""
    job = db.enqueue(**fields)
    db.force(job, state, Step.IDLE)
    return job


def paused(db: JobsDatabase, **fields: Any) -> UUID:
    job = db.uploading(1, **fields)
    run(db, "pause", [job])
    return job


def cancelling(db: JobsDatabase) -> UUID:
    job = db.uploading(1)
    run(db, "cancel", [job])
    return job


# --- cancel ---


def test_a_cancel_answers_for_each_job_of_a_mixed_set(db: JobsDatabase) -> None:
    fresh, initializing, uploading, deferred, unknown = (db.enqueue() for _ in range(5))
    db.take(initializing)
    (init,) = db.take(uploading)
    db.open(init, 3)
    (sending,) = db.take(uploading, 0)
    db.dispatch(uploading, 1)
    for job, error in ((deferred, UNAVAILABLE | {"code": "root_unavailable"}), (unknown, UNAVAILABLE)):
        (claim,) = db.take(job)
        with db.connection() as tx:
            transitions.release(tx, claim, Deferral(None, error))
    over, gone, already = ended(db, JobState.SUCCEEDED), ended(db), cancelling(db)
    jobs = [over, uploading, uuid4(), fresh, unknown, already, deferred, gone, initializing]
    results = run(db, "cancel", jobs)
    assert outcomes(results) == [
        *("not_cancellable", "cancelling", "not_found", "cancelled", "cancelling"),
        *("cancelling", "cancelled", "not_cancellable", "cancelling"),
    ]
    assert [result.job_id for result in results] == jobs
    assert [result.changed for result in results] == [False, True, False, True, True, False, True, False, True]
    assert db.states(uploading) == ["sending", "pending", "pending"]
    assert db.claim_of(uploading, 0).token == sending.token
    assert db.columns(initializing, "state", "step") == ("cancelling", "running")
    assert db.kinds(fresh)[-2:] == db.kinds(deferred)[-2:] == ["cancel_requested", "cancelled"]
    assert (db.kinds(unknown)[-1], db.kinds(already).count("cancel_requested")) == ("cancel_requested", 1)
    assert outcomes(run(db, "cancel", jobs)) == outcomes(results)


def test_a_job_that_is_written_while_a_cancel_waits_for_it_is_not_taken_for_untouched(db: JobsDatabase) -> None:
    """Of each row of the set: the events of what was written meanwhile are not to be seen."""
    first, second, third = jobs = [db.enqueue() for _ in range(3)]
    for job in jobs:
        (claim,) = db.take(job)
        with db.connection() as tx:
            transitions.release(tx, claim, Deferral(None, UNAVAILABLE | {"code": "root_unavailable"}))
        db.dispatch(job)
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            tx.execute("SELECT FROM job WHERE id = %s FOR UPDATE", [first])
            waiting = pool.submit(run, db, "cancel", jobs)
            wait_until_blocked(db)
            claim = db.claim_of(second)
            with db.connection() as other:  # granted and given back while the command waits for the first job
                transitions.claim_step(other, claim, JobState.QUEUED, LEASE)
                transitions.release(other, claim, Deferral(None, UNAVAILABLE))
        assert outcomes(waiting.result(120)) == ["cancelled", "cancelling", "cancelled"]
    assert db.row(third)["state"] == "cancelled"


# --- retry ---


def test_a_retry_answers_for_each_job_of_a_mixed_set(db: JobsDatabase) -> None:
    kept, fresh = db.uploading(3), ended(db, JobState.CANCELLED)
    done, failing = db.take(kept, 0, 1)
    db.checkpoint(done)
    with db.connection() as tx:
        transitions.fail(tx, failing, ERROR)
    lost = db.uploading(2)
    with db.connection() as tx:
        transitions.fail(tx, db.take(lost, 0)[0], ERROR | {"code": "session_lost"})
    busy = ended(db, key="busy")
    holder = db.uploading(1, key="busy")
    replaced = ended(db, key="replaced")
    newer = ended(db, JobState.SUCCEEDED, key="replaced")
    sleeping, being_cancelled = paused(db), cancelling(db)
    jobs = [newer, kept, busy, uuid4(), replaced, holder, lost, sleeping, being_cancelled, fresh]
    with db.connection() as tx:
        before = {job: everything(tx, job) for job in (newer, busy, replaced, holder, being_cancelled)}
    results = run(db, "retry", jobs)
    assert outcomes(results) == [
        *("not_retryable", "queued", "key_busy", "not_found", "superseded", "uploading"),
        *("queued", "uploading", "not_retryable", "queued"),
    ]
    assert [result.job_id for result in results if result.changed] == [kept, lost, sleeping, fresh]
    assert results[4].refusal is not None
    assert results[4].refusal.extra == {"job_id": str(newer)}
    with db.connection() as tx:
        assert {job: everything(tx, job) for job in before} == before
    assert db.columns(kept, "epoch", "run", "session", "bytes_done") == (1, 2, {"handle": "s-1"}, 10)
    assert db.states(kept) == ["done", "pending", "pending"]
    for job in (lost, fresh):
        assert db.columns(job, "epoch", "run", "session", "bytes_done", "finished_at") == (2, 2, None, 0, None)
    assert db.slices(lost) == []
    assert [db.events(job)[-1]["cause"]["fresh"] for job in (kept, lost, fresh)] == [False, True, True]
    assert db.columns(sleeping, "paused_at", "run") == (None, 3)
    assert db.kinds(sleeping)[-1] == "resumed"


@pytest.mark.parametrize("force", [False, True])
def test_of_several_jobs_for_one_target_the_newest_is_retried(db: JobsDatabase, *, force: bool) -> None:
    oldest, middle, newest = (ended(db, key="k") for _ in range(3))
    other = ended(db)
    results = run(db, "retry", [newest, other, oldest, middle], force=force)
    assert outcomes(results) == ["queued", "queued", "superseded", "superseded"]
    refused = [result.refusal for result in results if result.refusal]
    assert [refusal.extra for refusal in refused] == [{"job_id": str(newest)}] * 2
    assert [db.row(job)["state"] for job in (oldest, middle, newest)] == ["failed", "failed", "queued"]
    assert db.kinds(middle) == ["enqueued"]


def test_a_refused_job_supersedes_no_older_one(db: JobsDatabase) -> None:
    older, newer = (ended(db, key="k") for _ in range(2))

    def check(job: RetriedJob) -> Conflict | None:
        return Conflict("no", code="tenant_not_allowed") if job.id == newer else None

    assert outcomes(run(db, "retry", [older, newer], check=check)) == ["queued", "tenant_not_allowed"]


def test_a_forced_set_replaces_newer_objects_and_waits_for_live_jobs_nevertheless(db: JobsDatabase) -> None:
    replaced, busy = ended(db, key="replaced"), ended(db, key="busy")
    ended(db, JobState.SUCCEEDED, key="replaced")
    db.enqueue(key="busy")
    assert outcomes(run(db, "retry", [busy, replaced], force=True)) == ["key_busy", "queued"]
    assert db.events(replaced)[-1]["cause"] == {"force": True, "fresh": False}


def test_a_job_that_a_check_refuses_undoes_no_other(db: JobsDatabase) -> None:
    """`check` is asked about what would be resumed or is live, too, and not about what is refused already."""
    failed, refused, over = ended(db), ended(db), ended(db, JobState.SUCCEEDED)
    live, sleeping = db.uploading(1), paused(db)
    asked = []

    def check(job: RetriedJob) -> Conflict | None:
        asked.append(job.id)
        return Conflict("no", code="tenant_not_allowed") if job.id in {refused, live, sleeping} else None

    results = run(db, "retry", [failed, refused, over, live, sleeping], check=check)
    refusals = ["tenant_not_allowed"] * 2
    assert outcomes(results) == ["queued", "tenant_not_allowed", "not_retryable", *refusals]
    assert set(asked) == {failed, refused, live, sleeping}
    assert db.columns(refused, "state", "run") == ("failed", 1)
    assert db.row(sleeping)["paused_at"] is not None


def test_a_target_that_is_taken_between_check_and_write_is_busy_for_its_job_alone(db: JobsDatabase) -> None:
    first, raced_older, raced, last = (ended(db, key=key) for key in ("a", "b", "b", "c"))
    sleeping = paused(db)
    jobs = [sleeping, last, raced, first, raced_older]
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            transitions.enqueue(tx, [db.new(key="b")], "another client")
            waiting = pool.submit(run, db, "retry", jobs)
            wait_until_blocked(db)
        results = waiting.result(120)
    assert outcomes(results) == ["uploading", "queued", "key_busy", "queued", "key_busy"]
    assert db.row(sleeping)["paused_at"] is None
    for job, state, run_number in ((first, "queued", 2), (last, "queued", 2), (raced, "failed", 1)):
        assert db.columns(job, "state", "run") == (state, run_number)
        assert db.kinds(job).count("retried") == run_number - 1


def test_one_job_whose_target_is_taken_meanwhile_is_refused(db: JobsDatabase) -> None:
    job = ended(db, key="a")
    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            transitions.enqueue(tx, [db.new(key="a")], "another client")
            waiting = pool.submit(run, db, "retry", [job])
            wait_until_blocked(db)
        assert outcomes(waiting.result(120)) == ["key_busy"]
    assert db.columns(job, "state", "run") == ("failed", 1)


def test_a_target_that_is_taken_and_given_up_again_is_no_obstacle(db: JobsDatabase) -> None:
    jobs = [ended(db, key=key) for key in ("a", "b")]
    with ThreadPoolExecutor(1) as pool:
        with db.connection() as tx, tx.transaction(force_rollback=True):
            transitions.enqueue(tx, [db.new(key="a")], "another client")
            waiting = pool.submit(run, db, "retry", jobs)
            wait_until_blocked(db)
        assert outcomes(waiting.result(120)) == ["queued", "queued"]


# --- pause and resume ---


def test_pause_and_resume_answer_for_each_job_of_a_mixed_set(db: JobsDatabase) -> None:
    waiting, uploading, sleeping = db.enqueue(), db.uploading(2), paused(db)
    db.dispatch(waiting)
    db.dispatch(uploading, 0)
    over, aborting = ended(db), db.uploading(1)
    with db.connection() as tx:
        cancel_job(tx, aborting)
        transitions.promote_due(tx)
    db.dispatch(aborting)
    jobs = [uuid4(), over, uploading, sleeping, waiting, aborting]
    states = ["not_found", "failed", "uploading", "uploading", "queued", "cancelling"]
    results = run(db, "pause", jobs)
    assert outcomes(results) == states
    assert [result.job_id for result in results if result.changed] == [uploading, waiting]
    assert (db.states(uploading), db.row(waiting)["step"]) == (["pending", "pending"], "pending")
    assert db.columns(aborting, "paused_at", "step", "run") == (None, "pending", 2)
    results = run(db, "resume", jobs)
    assert outcomes(results) == states
    assert [result.job_id for result in results if result.changed] == [uploading, sleeping, waiting]
    assert [db.columns(job, "paused_at", "pause_reason", "run") for job in (uploading, sleeping, waiting)] == [
        (None, None, 3)
    ] * 3
    assert [db.kinds(job)[-2:] for job in (uploading, sleeping, waiting)] == [["paused", "resumed"]] * 3
    assert not any(result.changed for result in run(db, "resume", jobs))


# --- all commands ---


@pytest.mark.parametrize("command", COMMANDS)
def test_a_set_may_be_empty_and_name_a_job_twice(db: JobsDatabase, command: str) -> None:
    job, gone = paused(db), uuid4()
    assert run(db, command, []) == []
    results = run(db, command, [gone, job, gone, job])
    assert [result.job_id for result in results] == [gone, job, gone, job]
    assert results[1] == results[3]
    assert outcomes(results)[::2] == ["not_found"] * 2


@pytest.mark.parametrize("command", COMMANDS)
def test_jobs_of_other_tenants_are_not_found_and_not_changed(db: JobsDatabase, command: str) -> None:
    mine, theirs = paused(db, tenant="acme"), paused(db, tenant="umbrella")
    with db.connection() as tx:
        before = everything(tx, theirs)
    assert outcomes(run(db, command, [theirs, mine], tenant="acme"))[0] == "not_found"
    with db.connection() as tx:
        assert everything(tx, theirs) == before
    assert "not_found" not in outcomes(run(db, command, [theirs, mine]))


@pytest.mark.parametrize(("tenant", "shown"), [("acme", False), ("umbrella", True), (None, True)])
def test_the_job_that_supersedes_is_named_to_those_who_see_it(
    db: JobsDatabase, tenant: str | None, *, shown: bool
) -> None:
    job = ended(db, key="k", tenant="acme")
    newer = ended(db, JobState.SUCCEEDED, key="k", tenant=tenant if shown and tenant else "umbrella")
    db.run("UPDATE job SET tenant = %s WHERE id = %s", tenant or "acme", job)
    (result,) = run(db, "retry", [job], tenant=tenant)
    assert outcome(result) == "superseded"
    assert result.refusal is not None
    assert (str(newer) in result.refusal.message, "job_id" in result.refusal.extra) == (shown, shown)


@pytest.mark.parametrize("command", ["cancel", "resume", "retry"])
def test_a_command_wakes_the_dispatcher_once(db: JobsDatabase, command: str) -> None:
    """Once for any number of jobs, and not at all where nothing has changed."""
    jobs = [paused(db) for _ in range(3)]
    if command == "retry":
        jobs.append(ended(db))
    with listen(db.url) as listening:
        for _ in range(2):
            run(db, command, jobs)
        db.run("SELECT pg_notify(%s, 'end')", WAKE_CHANNEL)
        heard = [notification.payload for notification in until_the_end(listening.notifies(timeout=120))]
    assert heard == [""]


def until_the_end(notifications: Iterator[Any]) -> Iterator[Any]:
    for notification in notifications:
        if notification.payload == "end":
            return
        yield notification


def test_a_thousand_jobs_take_as_many_statements_as_one(db: JobsDatabase) -> None:
    new = [db.new() for _ in range(1_000)]
    jobs = [job.id for job in new]
    with db.connection() as tx:
        transitions.enqueue(tx, new, "o")
    counted: list[int] = []
    for command, state in (("pause", "queued"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        with db.transaction() as tx:
            watched = WatchedConnection(tx)
            results = COMMANDS[command](watched, jobs)
        assert outcomes(results) == [state] * len(jobs)
        assert all(result.changed for result in results)
        counted.append(watched.statements)
    assert counted == [1, 2, 2, 3]  # with the NOTIFY; a retry reads first, and has a savepoint
    assert db.run("SELECT DISTINCT state, run, epoch FROM job") == [{"state": "queued", "run": 4, "epoch": 2}]


class WatchedConnection:
    """A connection that counts the statements sent, and keeps the names of their errors."""

    def __init__(self, tx: Connection) -> None:
        self._tx, self.statements = tx, 0
        self.errors: list[str] = []

    def execute(self, statement: Any, params: Any = None) -> Any:
        self.statements += 1
        try:
            return self._tx.execute(statement, params)
        except psycopg.Error as error:
            self.errors.append(type(error).__name__)
            raise

    def transaction(self) -> Any:
        return self._tx.transaction()


# --- concurrent commands ---


@pytest.mark.parametrize("pair", ["cancel retry", "retry retry", "pause resume", "pause cancel", "resume retry"])
def test_overlapping_sets_in_opposite_orders_do_not_deadlock(db: JobsDatabase, pair: str) -> None:
    """Each command has locked some of the jobs when the other ones begin; a deadlock would be raised."""
    actors, rounds = 4, 15
    jobs = [db.uploading(2) for _ in range(12)]
    together = threading.Barrier(actors, timeout=60)

    def act(number: int) -> list[list[str]]:
        command = pair.split()[number % 2]
        mine = jobs[number:] + jobs[:number]
        found = []
        for _ in range(rounds):
            together.wait()
            found.append(outcomes(run(db, command, mine if number < actors // 2 else mine[::-1])))
        return found

    with ThreadPoolExecutor(actors) as pool:
        answers = list(pool.map(act, range(actors)))
    live = {"queued", "uploading", "cancelling", "cancelled", "not_retryable", "not_cancellable"}
    assert {each for found in answers for one in found for each in one} <= live
    assert all(len(one) == len(jobs) for found in answers for one in found)


def test_retries_and_batches_for_the_same_targets_do_not_deadlock(db: JobsDatabase) -> None:
    """Both wait for the targets that others take, in one order, whatever the order of the ids."""
    actors, rounds = 4, 12
    keys = [f"k{number:02}" for number in range(30)]
    orders = [keys[::-1], keys]
    sets = [[ended(db, key=key) for key in order] for order in orders]
    together = threading.Barrier(actors, timeout=60)

    def act(number: int) -> list[str]:
        deadlocks = []
        for turn in range(rounds):
            together.wait()
            with db.connection() as tx, tx.transaction(force_rollback=bool(turn % 3)):
                watched = WatchedConnection(tx)
                if number < len(sets):
                    results = COMMANDS["retry"](watched, sets[number], force=True)
                    assert set(outcomes(results)) <= {"queued", "key_busy"}
                else:
                    transitions.enqueue(cast("Any", watched), [db.new(key=key) for key in orders[number % 2]], "o")
            deadlocks += [error for error in watched.errors if error == "DeadlockDetected"]
            together.wait()
            if number == 0:
                db.run("UPDATE job SET state = 'failed', step = 'idle', finished_at = now() WHERE finished_at IS NULL")
        return deadlocks

    with ThreadPoolExecutor(actors) as pool:
        assert list(pool.map(act, range(actors))) == [[]] * actors


def test_a_retry_that_the_server_rolls_back_for_a_deadlock_writes_each_job_by_itself(db: JobsDatabase) -> None:
    """Another transaction takes two targets one by one, in the opposite order."""
    jobs = [ended(db, key=key) for key in "abc"]

    def retry() -> list[str]:
        with db.transaction() as tx:
            tx.execute("SET LOCAL deadlock_timeout = '2s'")
            watched = WatchedConnection(tx)
            found = outcomes(COMMANDS["retry"](watched, jobs))
            assert watched.errors[0] == "DeadlockDetected"
            return found

    with ThreadPoolExecutor(1) as pool:
        with db.transaction() as tx:
            tx.execute("SET LOCAL deadlock_timeout = '2min'")
            transitions.enqueue(tx, [db.new(key="b")], "o")
            waiting = pool.submit(retry)
            wait_until_blocked(db)  # it has written `a`
            transitions.enqueue(tx, [db.new(key="a")], "o")
        assert waiting.result(120) == ["key_busy", "key_busy", "queued"]
