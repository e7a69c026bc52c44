"""Every transition from every state: the table's moves are made, and all others change nothing."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from tests.integration.jobs.database import (
    AT_ONCE,
    AT_ONCE_LEASES,
    ERROR,
    LEASE,
    SOON,
    abandon_job,
    cancel_job,
    everything,
    opened_session,
    retry_job,
)
from worker.errors import Conflict, StaleClaim
from worker.jobs import control, transitions
from worker.jobs.leases import Acknowledged, Claim
from worker.jobs.rows import InitProgress
from worker.jobs.states import FINAL, SLICE_MOVES, STEPS, Event, JobState, SliceState, Step, may

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection

Row = dict[str, Any]
Rows = dict[str, list[Row]]
Act = Callable[["Connection", "Case"], object]
SLICES = (SliceState.PENDING, SliceState.DISPATCHED, SliceState.SENDING, SliceState.DONE)
PENDING, DISPATCHED, SENDING, DONE = range(4)
Q, I, U, F = JobState.QUEUED, JobState.INITIALIZING, JobState.UPLOADING, JobState.FINISHING  # noqa: E741
C, OK, BAD, X = JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
EVERYWHERE = frozenset((state, step) for state, steps in STEPS.items() for step in steps)


class Case:
    """A job in one state and step, with a slice in each of its states, and the claims that its rows grant."""

    def __init__(self, db: JobsDatabase, job: UUID) -> None:
        self.job = job
        self.step: Claim = db.claim_of(job)
        self.dispatched, self.sending, self.done = (
            Claim(job, number, 5, self.step.epoch, db.worker) for number in (DISPATCHED, SENDING, DONE)
        )

    def with_claims(self, change: Callable[[Claim], Claim]) -> Case:
        """Return the same case with other claims."""
        other = object.__new__(Case)
        other.job, other.step = self.job, change(self.step)
        other.dispatched, other.sending, other.done = map(change, (self.dispatched, self.sending, self.done))
        return other


def running(*states: JobState) -> set[tuple[JobState, Step]]:
    return {(state, Step.RUNNING) for state in states}


def anywhere(*states: JobState) -> set[tuple[JobState, Step]]:
    return {where for where in EVERYWHERE if where[0] in states}


def save(tx: Connection, case: Case) -> object:
    return transitions.save_progress(tx, case.step, InitProgress({"size": 1}, 40, existed=False), LEASE)


def open_session(held: int) -> Act:
    def act(tx: Connection, case: Case) -> object:
        return transitions.open_session(tx, case.step, opened_session(40, range(held), handle={"handle": "s-2"}))

    return act


def dispatched_in(*states: JobState) -> set[tuple[JobState, Step]]:
    return {(state, Step.DISPATCHED) for state in states}


#: The moves of a claim: the call, and the states and steps that grant it (in jobs that are not paused).
CLAIM_MOVES: dict[str, tuple[Act, set[tuple[JobState, Step]]]] = {
    "claim init": (lambda tx, c: transitions.claim_step(tx, c.step, Q, LEASE), dispatched_in(Q)),
    "claim finish": (lambda tx, c: transitions.claim_step(tx, c.step, F, LEASE), dispatched_in(F)),
    "claim abort": (lambda tx, c: transitions.claim_step(tx, c.step, C, LEASE), dispatched_in(C)),
    "claim slice": (lambda tx, c: transitions.claim_slice(tx, c.dispatched, low_speed=1, slack=LEASE), anywhere(U)),
    "save progress": (save, running(I, C)),
    "open session": (open_session(1), running(I, C)),
    "open session, all held": (open_session(4), running(I, C)),
    "reconcile, all listed": (lambda tx, c: transitions.reconcile(tx, c.step, [0, 1, 2, 3]), running(I, F, C)),
    "reconcile, none listed": (lambda tx, c: transitions.reconcile(tx, c.step, []), running(I, F, C)),
    "succeed": (lambda tx, c: transitions.succeed(tx, c.step, {"proof": "mark"}), running(I, F, C)),
    "fail by step": (lambda tx, c: transitions.fail(tx, c.step, ERROR), running(I, F, C)),
    "fail by slice": (lambda tx, c: transitions.fail(tx, c.sending, ERROR), set(EVERYWHERE)),
    "new epoch by step": (lambda tx, c: transitions.new_epoch(tx, c.step, ERROR, None), running(I, F, C)),
    "another file": (lambda tx, c: transitions.take_other_file(tx, c.step, ERROR), running(I, F, C)),
    "new epoch by slice": (lambda tx, c: transitions.new_epoch(tx, c.sending, ERROR, LEASE), anywhere(U, C)),
    "cancelled": (lambda tx, c: transitions.cancelled(tx, c.step, None), running(C)),
    "cancelled, left open": (lambda tx, c: transitions.cancelled(tx, c.step, "it is not ours"), running(C)),
    "release step": (lambda tx, c: transitions.release(tx, c.step, SOON), running(I, F, C)),
    "release step at once": (lambda tx, c: transitions.release(tx, c.step, AT_ONCE), running(I, F, C)),
    "release slice": (lambda tx, c: transitions.release(tx, c.sending, SOON), set(EVERYWHERE)),
    "release slice at once": (lambda tx, c: transitions.release(tx, c.sending, AT_ONCE), set(EVERYWHERE)),
}

BEFORE_THE_PLAN = ("open session", "open session, all held")


def checkpoint(tx: Connection, case: Case) -> object:
    return transitions.checkpoint(tx, [Acknowledged(case.sending, "tag", None)], case.sending.worker)


def abandon_and_end(tx: Connection, case: Case) -> object:
    abandon_job(tx, case.job)
    tx.execute("UPDATE slice SET state = 'pending' WHERE state = 'sending' AND job_id = %s", [case.job])
    tx.execute("UPDATE job SET abandoned_at = abandoned_at - interval '1 s' WHERE abandoned_at IS NOT NULL")
    return transitions.end_abandoned(tx, AT_ONCE_LEASES)


#: The moves that need no claim, in the same form.
OTHER_MOVES: dict[str, tuple[Act, set[tuple[JobState, Step]]]] = {
    "checkpoint": (checkpoint, set(EVERYWHERE)),
    "cancel": (lambda tx, c: cancel_job(tx, c.job), anywhere(Q, I, U, F, C, X)),
    "retry": (lambda tx, c: retry_job(tx, c.job), anywhere(Q, I, U, F, BAD, X)),
    "pause": (lambda tx, c: control.pause(tx, [c.job], "o", "because"), set(EVERYWHERE)),
    "abandon": (lambda tx, c: abandon_job(tx, c.job), anywhere(Q, I, U, F, C, X)),
    "abandon, and its end": (abandon_and_end, anywhere(Q, I, U, F, C, X)),
    "retry from scratch": (lambda tx, c: retry_job(tx, c.job, scratch=True), anywhere(Q, I, U, F, BAD, X)),
    "priority": (lambda tx, c: control.prioritise(tx, [c.job], "o", 0), set(EVERYWHERE)),
    "start": (lambda tx, c: control.start_now(tx, [c.job], "o"), set(EVERYWHERE)),
    "end of the abandoned": (lambda tx, _: transitions.end_abandoned(tx, AT_ONCE_LEASES), set(EVERYWHERE)),
    "quarantine": (lambda tx, c: transitions.quarantine(tx, c.job, 1, ERROR), set(EVERYWHERE)),
    "dispatch": (lambda tx, c: transitions.dispatch(tx, [c.job], [(c.job, n) for n in range(4)]), set(EVERYWHERE)),
    "redispatch": (lambda tx, _: transitions.redispatch(tx), set(EVERYWHERE)),
    "promote": (lambda tx, _: transitions.promote_due(tx), set(EVERYWHERE)),
    "rescue": (lambda tx, _: transitions.rescue(tx), set(EVERYWHERE)),
}


def assert_only_the_table(before: Rows, after: Rows) -> None:
    """Check that each change of state has its event, and that the state table allows each event."""
    (old,), (new,) = before["job"], after["job"]
    assert after["event"][: len(before["event"])] == before["event"]  # history is append-only
    state = old["state"]
    for event in after["event"][len(before["event"]) :]:
        if event["from_state"] is None and event["to_state"] is None:
            continue
        assert event["from_state"] == state
        assert may(JobState(state), Event(event["kind"]), JobState(event["to_state"])), event
        state = event["to_state"]
    assert new["state"] == state
    assert new["token"] >= old["token"]
    assert new["epoch"] in (old["epoch"], old["epoch"] + 1)
    if new["state"] in FINAL and new["state"] != old["state"]:
        assert new["step"] == Step.IDLE
        assert (new["worker"], new["lease_until"], new["not_before"]) == (None, None, None)
    assert_slices(before, after)
    if new["state"] == U != old["state"]:
        assert new["slices_left"] == sum(row["state"] != SliceState.DONE for row in after["slice"]) > 0


def assert_slices(before: Rows, after: Rows) -> None:
    (old,), (new,) = before["job"], after["job"]
    was = {row["number"]: row for row in before["slice"]}
    is_now = {row["number"]: row for row in after["slice"]}
    ended = new["state"] != old["state"] and new["state"] in {OK, X}
    if new["epoch"] > old["epoch"] or (
        ended and (old["state"] != Q or not is_now)
    ):  # a cancel may end a queued job at once
        assert not is_now
        return
    assert was.keys() == is_now.keys() or not was
    for number, row in was.items():
        pair = (SliceState(row["state"]), SliceState(is_now[number]["state"]))
        assert pair[0] is pair[1] or pair in SLICE_MOVES
        assert is_now[number]["token"] >= row["token"]


class Walk:
    """A job in each state and step; every call is made in a transaction that is rolled back."""

    def __init__(self, db: JobsDatabase, *, paused: bool = False) -> None:
        self.db, self.slices = db, True
        jobs = [db.new() for _ in EVERYWHERE]
        with db.connection() as tx:
            transitions.enqueue(tx, jobs, "o")
        self.wheres = dict(zip((job.id for job in jobs), sorted(EVERYWHERE), strict=True))
        db.force_all([(job, state, step) for job, (state, step) in self.wheres.items()], SLICES)
        if paused:
            db.run("UPDATE job SET paused_at = now(), pause_reason = 'r'")
        self.cases = {where: Case(db, job) for job, where in self.wheres.items()}
        self.before = self.rows()

    def rows(self) -> dict[UUID, Rows]:
        """Return all rows, by job."""
        with self.db.connection() as tx:
            return {job: everything(tx, job) for job in self.wheres}

    def attempt(self, act: Act, case: Case) -> bool:
        """Call a move for one job, and return whether it was granted.

        A refusal has changed no row; the state table allows what was granted.
        """
        with self.db.connection() as tx, tx.transaction(force_rollback=True):
            if not self.slices:
                tx.execute("DELETE FROM slice")
            try:
                act(tx, case)
            except (StaleClaim, Conflict):
                assert self.touched(tx) == []
                return False
            touched = self.touched(tx)
            after = {job: everything(tx, job) for job in touched}
        for job, is_now in after.items():
            assert_only_the_table(self.before[job], is_now)
        return True

    def touched(self, tx: Connection) -> list[UUID]:
        """Return the jobs that this transaction or a savepoint of it has written to: their rows, slices or events."""
        rows = tx.execute(
            """SELECT id FROM job WHERE age(xmin) <= age(pg_current_xact_id()::xid)
               UNION SELECT job_id FROM slice WHERE age(xmin) <= age(pg_current_xact_id()::xid)
               UNION SELECT job_id FROM event WHERE age(xmin) <= age(pg_current_xact_id()::xid)
               UNION SELECT j.id FROM job j LEFT JOIN slice s ON s.job_id = j.id GROUP BY j.id
                     HAVING count(s.*) <> %s""",
            [len(SLICES) if self.slices else 0],
        )
        return [row["id"] for row in rows]

    def without_slices(self) -> Walk:
        """Return a walk on the same jobs before they have slices."""
        other = copy(self)
        other.slices = False
        other.before = {job: rows | {"slice": []} for job, rows in self.before.items()}
        return other

    def granted(self, act: Act) -> set[tuple[JobState, Step]]:
        """Return the states and steps in which a move is granted."""
        return {where for where, case in self.cases.items() if self.attempt(act, case)}


@pytest.fixture(scope="module")
def shared_walk(shared_db: JobsDatabase) -> Walk:
    return Walk(shared_db)


@pytest.fixture
def walk(shared_walk: Walk) -> Iterator[Walk]:
    """The walk through all states; a test commits nothing with it."""
    yield shared_walk
    assert shared_walk.rows() == shared_walk.before


@pytest.mark.parametrize("name", CLAIM_MOVES)
def test_a_claims_move_is_granted_where_the_table_says_and_nowhere_else(walk: Walk, name: str) -> None:
    act, granted_from = CLAIM_MOVES[name]
    if name in BEFORE_THE_PLAN:
        walk = walk.without_slices()
    assert walk.granted(act) == granted_from


@pytest.mark.parametrize("name", OTHER_MOVES)
def test_every_other_move_obeys_the_table(walk: Walk, name: str) -> None:
    act, granted_from = OTHER_MOVES[name]
    assert walk.granted(act) == granted_from


def test_a_paused_job_obeys_the_table_too(db: JobsDatabase) -> None:
    walk = Walk(db, paused=True)
    for name, (act, granted_from) in OTHER_MOVES.items():
        refused = anywhere(Q, I, U, F) if name == "retry from scratch" else set()  # it would go on where it was
        assert walk.granted(act) >= granted_from - refused
    for name in ("claim init", "claim slice"):
        assert walk.granted(CLAIM_MOVES[name][0]) == set()
    for name in ("claim finish", "claim abort", "succeed", "release slice"):
        act, granted_from = CLAIM_MOVES[name]
        assert walk.granted(act) == granted_from


@pytest.mark.parametrize("end", ["dead", "stopped"])
def test_a_rescue_after_a_worker_ended_obeys_the_table(walk: Walk, end: str) -> None:
    def act(tx: Connection, _: Case) -> object:
        tx.execute('UPDATE worker SET ended_at = now(), "end" = %s', [end])
        return transitions.rescue(tx)

    assert walk.attempt(act, walk.cases[I, Step.RUNNING])


STALE: dict[str, Callable[[Claim], Claim]] = {
    "older token": lambda claim: replace(claim, token=claim.token - 1),
    "newer token": lambda claim: replace(claim, token=claim.token + 1),
    "older epoch": lambda claim: replace(claim, epoch=claim.epoch - 1),
    "newer epoch": lambda claim: replace(claim, epoch=claim.epoch + 1),
    "another job": lambda claim: replace(claim, job_id=uuid4()),
    "another worker": lambda claim: replace(claim, worker=uuid4()),
}
TAKES_ANY_WORKER = {"claim init", "claim finish", "claim abort", "claim slice"}


@pytest.mark.parametrize("what", STALE)
def test_a_stale_claim_changes_nothing(walk: Walk, what: str) -> None:
    for name, (act, granted_from) in CLAIM_MOVES.items():
        if what == "another worker" and name in TAKES_ANY_WORKER:
            continue
        if name in BEFORE_THE_PLAN:
            continue
        for where in granted_from:
            case = walk.cases[where]
            assert not walk.attempt(act, case.with_claims(STALE[what])), (name, where)


@pytest.mark.parametrize("what", STALE)
@pytest.mark.parametrize("name", BEFORE_THE_PLAN)
def test_a_stale_claim_stores_no_session(walk: Walk, name: str, what: str) -> None:
    walk = walk.without_slices()
    act, granted_from = CLAIM_MOVES[name]
    for where in granted_from:
        assert not walk.attempt(act, walk.cases[where].with_claims(STALE[what])), where


@pytest.mark.parametrize("what", STALE)
def test_a_stale_checkpoint_changes_nothing(walk: Walk, what: str) -> None:
    for case in walk.cases.values():
        stale = case.with_claims(STALE[what])
        with walk.db.connection() as tx, tx.transaction(force_rollback=True):
            assert checkpoint(tx, stale) == {}
            assert walk.touched(tx) == []


def test_a_step_that_was_lost_and_claimed_again_is_the_new_holders(db: JobsDatabase) -> None:
    """Two claims of one step, by two workers: only the later one moves it."""
    job = db.enqueue()
    (first,) = db.take(job)
    other = db.start_worker()
    db.end_worker(db.worker)
    with db.connection() as tx:
        transitions.rescue(tx)
    (second,) = db.take(job, worker=other)
    with db.connection() as tx:
        before = everything(tx)
        with pytest.raises(StaleClaim, match=f"{job}.*token {first.token}"):
            transitions.fail(tx, first, ERROR)
        assert everything(tx) == before
        transitions.fail(tx, second, ERROR)
    assert db.row(job)["state"] == BAD
