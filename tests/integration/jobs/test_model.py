"""Any sequence of calls, valid and invalid ones, leaves the rows exactly as a model in memory predicts."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.integration.jobs.database import ERROR, LEASE, SLICE_BYTES, cancel_job, opened_session, retry_job
from tests.integration.jobs.model import DONE, OK, SENDING, C, F, I, ModelJob, Ticket, U
from tests.integration.jobs.store import FILE, OTHER, Store
from worker.errors import Conflict, StaleClaim
from worker.jobs import control, transitions
from worker.jobs.leases import Acknowledged, Claim, Deferral
from worker.jobs.states import FINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from tests.integration.jobs.database import JobsDatabase
    from worker.db.pool import Connection

TARGETS, WORKERS, MAX_SLICES = 2, 2, 3
picks = st.integers(0, 2**16)
numbers = st.sets(st.integers(0, MAX_SLICES - 1))
choices = st.integers(0, 9)


class Machine(RuleBasedStateMachine):
    """Jobs in Postgres beside the same jobs in memory."""

    def __init__(self, db: JobsDatabase) -> None:
        super().__init__()
        db.clear()
        self.db = db
        self.jobs: dict[UUID, ModelJob] = {}
        self.workers = [db.start_worker() for _ in range(WORKERS)]
        self.messages: list[Ticket] = []
        self.claims: list[Ticket] = []
        self.store = Store()
        self.sessions: dict[tuple[UUID, int], str] = {}  # of a job and its epoch

    # --- calls, and the choice of their arguments ---

    def call(self, act: Callable[[Connection], object]) -> bool:
        with self.db.connection() as tx, tx.transaction():
            try:
                with tx.transaction():
                    act(tx)
            except (StaleClaim, Conflict):
                return False
        return True

    def pick(self, items: list[Any], pick: int, good: Callable[[Any], bool] = bool) -> Any:
        """Pick an item; mostly a good one, so that moves are granted."""
        wanted = [item for item in items if good(item)] if pick % 8 else items
        wanted = wanted or items
        return wanted[(pick // 8) % len(wanted)]

    def job(self, pick: int) -> ModelJob:
        return self.pick(list(self.jobs.values()), pick)  # type: ignore[no-any-return]

    def held(self, pick: int, *, step: bool) -> tuple[ModelJob, Ticket, Claim]:
        """Pick a claim that was once granted, of a step or of a slice; mostly one that is still held."""

        def good(ticket: Ticket) -> bool:
            job = self.jobs[ticket.job]
            if ticket.number is None:
                return step and job.holds_step(ticket)
            return not step and job.held_slice(ticket, SENDING) is not None

        ticket: Ticket = self.pick(self.claims, pick, good)
        assert ticket.worker is not None
        claim = Claim(ticket.job, ticket.number, ticket.token, ticket.epoch, ticket.worker)
        return self.jobs[ticket.job], ticket, claim

    # --- jobs ---

    @precondition(lambda self: len(self.jobs) < 4)
    @rule(place=st.integers(0, TARGETS - 1))
    def enqueue(self, place: int) -> None:
        new = self.db.new(id=self.db.next_id(), target=f"target {place}")
        busy = any(job.live and job.target == new.target for job in self.jobs.values())
        with self.db.connection() as tx:
            assert transitions.enqueue(tx, [new], "o") == (set() if busy else {new.id})
        if not busy:
            self.jobs[new.id] = ModelJob(new.id, new.target)

    def dispatch(self) -> None:
        expected = [ticket for job in self.jobs.values() for ticket in job.dispatch()]
        slices = [(job.id, number) for job in self.jobs.values() for number in range(len(job.slices))]
        with self.db.connection() as tx:
            marked = transitions.dispatch(tx, list(self.jobs), slices)
        made = {(row.job_id, row.number, row.token, row.epoch, row.state) for row in marked}
        assert made == {(t.job, t.number, t.token, t.epoch, t.state) for t in expected}
        self.messages += expected

    @precondition(lambda self: self.messages)
    @rule(pick=picks, index=st.integers(0, WORKERS - 1))
    def claim(self, pick: int, index: int) -> None:
        worker = self.workers[index]
        message = self.pick(self.messages, pick, lambda m: deepcopy(self.jobs[m.job]).claim(m, worker))
        claim = Claim(message.job, message.number, message.token, message.epoch, worker)

        def act(tx: Connection) -> object:
            if message.number is None:
                return transitions.claim_step(tx, claim, message.state, LEASE)
            return transitions.claim_slice(tx, claim, low_speed=1, slack=LEASE)

        granted = self.call(act)
        assert granted == self.jobs[message.job].claim(message, worker)
        if granted:
            self.claims.append(replace(message, worker=worker))

    @precondition(lambda self: self.jobs)
    @rule(seed=picks, index=st.integers(0, WORKERS - 1), times=st.integers(1, 4))
    def get_to_work(self, seed: int, index: int, times: int) -> None:
        """Dispatch everything, and claim some of it."""
        self.promote()
        self.dispatch()
        for each in range(times if self.messages else 0):
            self.claim(seed * 8 + each * 8 + 1, index)

    @precondition(lambda self: self.claims)
    @rule(pick=picks, total=st.integers(1, MAX_SLICES), some=numbers, how=st.integers(0, 15))
    def work_on_a_step(self, pick: int, total: int, some: set[int], how: int) -> None:
        """Mostly perform the step's own move; sometimes any other."""
        acts: list[Callable[[], None]] = [
            lambda: self.release(pick, step=True),
            lambda: self.fail(pick, step=True),
            lambda: self.new_epoch(pick, step=True),
            lambda: self.open_session(pick, total, some),
            lambda: self.reconcile(pick, some),
            lambda: self.succeed(pick),
            lambda: self.cancelled(pick),
        ]
        job, _, _ = self.held(pick, step=True)
        usual = {I: 4 if job.session else 3, F: 5, C: 6}.get(job.state, 0)
        acts[how if how < len(acts) else usual]()

    @precondition(lambda self: any(claim.number is not None for claim in self.claims))
    @rule(some=st.lists(picks, min_size=1, max_size=4), how=st.integers(0, 9))
    def work_on_slices(self, some: list[int], how: int) -> None:
        """Mostly record them as done."""
        if how == 0:
            self.fail(some[0], step=False)
        elif how == 1:
            self.new_epoch(some[0], step=False)
        elif how == 2:
            self.release(some[0], step=False)
        else:
            self.checkpoint(some)

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, how=st.integers(0, 11), force=st.booleans())
    def interfere(self, pick: int, how: int, *, force: bool) -> None:
        """Act as an operator, or end a worker."""
        if how == 0:
            self.cancel(pick)
        elif how == 1:
            self.pause(pick)
        elif how == 2:
            self.end_worker(pick % WORKERS, "dead" if force else "stopped")
        elif how < 6:
            self.retry(pick, force=force)

    @rule(place=st.integers(0, TARGETS - 1), number=st.integers(0, MAX_SLICES - 1), names_ours=st.booleans())
    def another_client_begins(self, place: int, number: int, *, names_ours: bool) -> None:
        """Begin a foreign upload at a key, of our file or of other content; it replaces the one there."""
        self.store.begin_foreign(f"target {place}", number, names_ours=names_ours)

    @precondition(lambda self: any(self.half_sent(claim) for claim in self.claims))
    @rule(index=st.integers(0, WORKERS - 1))
    def fail_and_retry(self, index: int) -> None:
        """Fail halfway, let another client send into the session, and continue by the store's list."""
        number, ticket = next((n, claim) for n, claim in enumerate(self.claims) if self.half_sent(claim))
        job = self.jobs[ticket.job]
        self.fail(8 * number, step=False)
        self.retry(8 * list(self.jobs).index(job.id), force=True)
        self.another_client_sends(job)
        self.promote()
        self.dispatch()
        steps = [n for n, message in enumerate(self.messages) if (message.job, message.number) == (job.id, None)]
        self.claim(8 * steps[-1], index)
        if job.state is I:
            self.reconcile(8 * (len(self.claims) - 1), set())

    def half_sent(self, ticket: Ticket) -> bool:
        """Return whether a ticket is the claim of a slice being sent, while other slices were never claimed."""
        job = self.jobs[ticket.job]
        return job.state is U and bool(self.unclaimed(job)) and job.held_slice(ticket, SENDING) is not None

    def another_client_sends(self, job: ModelJob) -> None:
        """Send other content into an upload of ours, as clients do that adopt any upload they find.

        Only into slices that no worker has claimed: a list does not say which client sent a slice.
        """
        upload = self.store.unfinished.get(job.target)
        if upload is not None and upload.session == self.sessions.get((job.id, job.epoch)):
            for number in self.unclaimed(job):
                upload.content.setdefault(number, OTHER)

    def unclaimed(self, job: ModelJob) -> list[int]:
        return [number for number, one in enumerate(job.slices) if not one.claimed]

    def session_of(self, ticket: Ticket) -> str | None:
        return self.sessions.get((ticket.job, ticket.epoch))

    # --- moves of claim holders ---

    def checkpoint(self, some: list[int]) -> None:
        first = self.held(some[0], step=False)[1]
        batch = {self.held(pick, step=False)[1] for pick in some}
        batch = {ticket for ticket in batch if ticket.worker == first.worker and ticket.number is not None}
        batch = {ticket for ticket in batch if self.put(ticket)}
        claims = [Claim(t.job, t.number, t.token, t.epoch, t.worker) for t in batch if t.worker is not None]
        if not claims:
            return
        with self.db.connection() as tx:
            recorded = transitions.checkpoint(tx, [Acknowledged(c, None, None) for c in claims], claims[0].worker)
        granted = {(t.job, t.number, t.token) for t in batch if self.jobs[t.job].checkpoint(t)}
        assert set(recorded) == granted

    def put(self, ticket: Ticket) -> bool:
        """Send the slice of a claim, however old; return whether the store has taken it."""
        session = self.session_of(ticket)
        return session is not None and ticket.number is not None and self.store.put(session, ticket.number)

    def release(self, pick: int, *, step: bool) -> None:
        job, ticket, claim = self.held(pick, step=step)
        if pick % 3 == 0:
            self.put(ticket)  # the store's response is lost
        assert self.call(lambda tx: transitions.release(tx, claim, Deferral(None, ERROR))) == job.release(ticket)

    def open_session(self, pick: int, total: int, held: set[int]) -> None:
        job, ticket, claim = self.held(pick, step=True)
        if claim.number is not None or job.session or job.state in {F, OK}:
            return
        there = self.store.unfinished.get(job.target)
        adopts = there is not None and there.names_ours and bool(held)
        upload = there if there is not None and adopts else self.store.begin(job.target)
        kept = [number for number in upload.content if number < total]
        opened = opened_session(total * SLICE_BYTES, kept, handle={"handle": upload.session})
        granted = self.call(lambda tx: transitions.open_session(tx, claim, opened))
        assert granted == job.open(ticket, total, kept)
        if granted:
            self.sessions[job.id, job.epoch] = upload.session

    def reconcile(self, pick: int, listed: set[int]) -> None:
        job, ticket, claim = self.held(pick, step=True)
        session = self.sessions.get((job.id, job.epoch))
        if pick % 2:
            self.another_client_sends(job)
        if claim.number is None and (job.session or job.state is C):
            # a list may lack the newest slice, but names only slices that are there
            has = self.store.listed(job.target, session or "") - (listed if len(listed) == 1 else set())
            granted = self.call(lambda tx: transitions.reconcile(tx, claim, sorted(has)))
            assert granted == job.reconcile(ticket, has)

    def succeed(self, pick: int) -> None:
        job, ticket, claim = self.held(pick, step=True)
        sized = self.db.row(job.id)["size_bytes"] is not None  # no worker calls succeed before
        if claim.number is None and sized:
            assert self.call(lambda tx: transitions.succeed(tx, claim, {})) == job.succeed(ticket)

    def cancelled(self, pick: int) -> None:
        job, ticket, claim = self.held(pick, step=True)
        if claim.number is None:
            assert self.call(lambda tx: transitions.cancelled(tx, claim, None)) == job.cancelled(ticket)

    def fail(self, pick: int, *, step: bool) -> None:
        job, ticket, claim = self.held(pick, step=step)
        assert self.call(lambda tx: transitions.fail(tx, claim, ERROR)) == job.fail(ticket)

    def new_epoch(self, pick: int, *, step: bool) -> None:
        job, ticket, claim = self.held(pick, step=step)
        assert self.call(lambda tx: transitions.new_epoch(tx, claim, ERROR, None)) == job.new_epoch(ticket)

    # --- moves of operators and the dispatcher ---

    def cancel(self, pick: int) -> None:
        job = self.job(pick)
        assert self.call(lambda tx: cancel_job(tx, job.id)) == job.cancel()

    def pause(self, pick: int) -> None:
        job = self.job(pick)
        assert self.call(lambda tx: control.pause(tx, [job.id], "o", "why"))
        job.pause()

    def retry(self, pick: int, *, force: bool) -> None:
        job = self.job(pick)
        others = [other for other in self.jobs.values() if other is not job and other.target == job.target]
        superseded = any(other.state is JobState.SUCCEEDED and other.id > job.id for other in others)
        if job.live and job.state is not C:
            expected = True
            job.paused = False
        elif job.state in {C, JobState.SUCCEEDED} or (superseded and not force):
            expected = False
        else:
            expected = not any(other.live for other in others)
            if expected:
                job.retry()
        assert self.call(lambda tx: retry_job(tx, job.id, force=force)) == expected

    def promote(self) -> None:
        self.db.run("UPDATE job SET not_before = NULL WHERE not_before IS NOT NULL")
        with self.db.connection() as tx:
            transitions.promote_due(tx)
        for job in self.jobs.values():
            job.promote()

    def end_worker(self, index: int, how: str) -> None:
        self.db.end_worker(self.workers[index], how=how)
        with self.db.connection() as tx:
            transitions.rescue(tx)
        for job in self.jobs.values():
            job.rescue(self.workers[index])
        self.workers[index] = self.db.start_worker()

    # --- invariant ---

    @invariant()
    def the_rows_are_the_model(self) -> None:
        rows = self.db.run("SELECT * FROM job ORDER BY id")
        found = [
            (r["id"], r["state"], r["step"], r["epoch"], r["token"], r["worker"], r["paused_at"] is not None,
             r["session"] is not None)
            for r in rows
        ]  # fmt: skip
        assert found == [
            (j.id, j.state, j.step, j.epoch, j.token, j.worker, j.paused, j.session) for j in self.jobs.values()
        ]
        slices = self.db.run("SELECT * FROM slice ORDER BY job_id, number")
        assert [(s["job_id"], s["number"], s["state"], s["token"], s["worker"]) for s in slices] == [
            (j.id, number, one.state, one.token, one.worker)
            for j in self.jobs.values()
            for number, one in enumerate(j.slices)
        ]
        for row in slices:
            session = self.sessions.get((row["job_id"], self.jobs[row["job_id"]].epoch))
            if row["state"] == DONE:
                assert session is not None
                assert self.store.uploads[session].content.get(row["number"]) == FILE, "a checkpoint of other bytes"
        for row in rows:
            job = self.jobs[row["id"]]
            if job.slices and row["slices_left"] is not None:
                assert row["slices_left"] == job.left()
            assert (row["finished_at"] is not None) is (job.state in FINAL)


def test_any_history_ends_where_the_model_says(db: JobsDatabase) -> None:
    class OnThisDatabase(Machine):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
