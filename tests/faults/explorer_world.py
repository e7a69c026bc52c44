"""A small world, and everything that can happen in it next.

One job, two workers of one thread each, a dispatcher, a client, a stranger, a store. A state is a value; `Moves` gives
every state that can follow, each with words for what happened. Whatever was published stays deliverable for ever, to
anybody and any number of times: that covers loss, delay, reordering and doubling of messages at once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.faults.explorer_edges import CUT, LOST, STOP, Answered, Ended, Found, Message, Program, Request, Statement
from tests.faults.explorer_rows import NOW, OVER
from tests.faults.explorer_state import JOB, SLICE_BYTES, Fault, Left, Next, Slot, State, Stranger, World, worker
from tests.faults.explorer_store import Store, respond, strange
from worker.jobs import due, leases, transitions, workers
from worker.jobs.leases import Claim
from worker.jobs.states import FINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.explorer_edges import Edge
    from tests.faults.explorer_program import Programs
    from tests.faults.explorer_rows import Change, Row, Rows
    from worker.db.pool import Tx

DEAD_AFTER_S = 10.0


class Moves:
    """Everything that can follow a state."""

    def __init__(self, world: World, rows: Rows, programs: Programs) -> None:
        self.world, self.rows, self.programs = world, rows, programs

    def begin(self, new: transitions.NewJob) -> State:
        """Return the first state: the job is enqueued, two workers live."""

        def enqueue(tx: Tx) -> None:
            transitions.enqueue(tx, [new], "client")
            for process in range(2):
                workers.start_worker(tx, worker(process), "w", slots=1, roots=[])

        store = Store(SLICE_BYTES, self.world.content, self.world.named)
        if self.world.predecessor is not None:
            store = strange(store, self.world.predecessor, self.world.foreign())
        if self.world.existed:
            store = strange(store, Stranger.PUT, self.world.foreign())
        world = self.world
        left = Left(world.faults, world.cancels, world.retries, world.strangers)
        number = self.rows.run(self.rows.empty, "enqueue", enqueue, with_crew=True).rows
        return State(number, store, frozenset(), (Slot(0), Slot(1)), left, 2)

    def after(self, state: State) -> Iterator[Next]:
        """Yield whatever can happen next."""
        for index, slot in enumerate(state.slots):
            if slot.program is not None:
                yield from self._running(state, index, slot, slot.program)
            elif slot != self._twin(state, index):
                for message in sorted(state.posted, key=repr):
                    yield self.step(state, index, Program(message))
        yield self.turn(state)
        yield self.rescue(state)
        yield from self._deaths(state)
        yield from self._others(state)

    def _twin(self, state: State, index: int) -> Slot | None:
        """Return the slot itself if an idle one before it is as good: two such workers differ by their names only."""
        ended = self.ended(state)
        here = state.slots[index]
        for other in state.slots[:index]:
            if other.program is None and not {worker(other.process), worker(here.process)} & ended:
                return here
        return None

    def ended(self, state: State) -> set[UUID]:
        """Return the workers that the rows say have ended."""
        return {UUID(row["id"]) for row in self.rows.crew(state.rows) if row["ended_at"] is not None}

    # --- a worker ---

    def step(self, state: State, index: int, program: Program) -> Next:
        """Let a thread's next edge take effect and be heard."""
        slot = state.slots[index]
        edge, after, heard = self._effect(state, slot, program)
        words = f"{self._who(slot, program)}: {edge.words}"
        return Next(words, self._heard(after, index, program, heard), edge, slot)

    def _effect(self, state: State, slot: Slot, program: Program) -> tuple[Edge, State, int]:
        """Return a thread's next edge, the state after its effect, and what is to be heard of it."""
        edge = self.programs.edge(worker(slot.process), program)
        if isinstance(edge, Statement):
            change = self.rows.statement(state.rows, edge.name, edge.params)
            heard = self.programs.number(Found(_as_heard(change.found)))
            return edge, state._replace(rows=change.rows), heard
        assert isinstance(edge, Request), edge
        store, code, data = respond(state.store, edge.op, edge.fields, edge.content)
        return edge, state._replace(store=store), self.programs.number(Answered(code, data))

    def _running(self, state: State, index: int, slot: Slot, program: Program) -> Iterator[Next]:
        normal = self.step(state, index, program)
        yield normal
        if state.left.faults == 0:
            return
        kinds, spent, who = self.world.kinds, self._spent(state), self._who(slot, program)
        edge, effect, _ = self._effect(spent, slot, program)
        unheard = Fault.NO_COMMIT_HEARD if isinstance(edge, Statement) else Fault.NO_ANSWER
        if unheard in kinds and (isinstance(edge, Statement) or effect != spent):
            after = self._heard(effect, index, program, CUT)
            yield Next(f"{normal.words}; its answer is lost", after, edge, slot, fault=True)
        if isinstance(edge, Request):
            if Fault.NOT_SENT in kinds:
                yield Next(f"{normal.words}, lost on the way", self._heard(spent, index, program, CUT), fault=True)
            if Fault.STOP in kinds and STOP not in program.heard:
                yield Next(f"{who}: told to stop", self._heard(spent, index, program, STOP), fault=True)
            if LOST not in program.heard and self._is_lost(state, slot, program):
                yield Next(f"{who}: hears that its claim is void", self._heard(state, index, program, LOST))
        if Fault.CRASH in kinds:
            yield Next(
                f"{who}: dies before {normal.edge.words if normal.edge else ''}", self.crash(spent, index), fault=True
            )
        if Fault.LAPSE in kinds and self._may_be_late(edge) and self.holds(state, slot, program):
            yield Next(f"{who}: its lease ends", self._lapse(spent, program), fault=True)

    def _heard(self, state: State, index: int, program: Program, heard: int) -> State:
        """Let a thread go on to its next edge; a task that has ended leaves its thread idle."""
        slot = state.slots[index]
        after = program._replace(heard=(*program.heard, heard))
        if Fault.CUT_OFF not in self.world.kinds and LOST not in after.heard and not self.holds(state, slot, program):
            after = after._replace(heard=(*after.heard, LOST))
        edge = self.programs.edge(worker(slot.process), after)
        if not isinstance(edge, Ended):
            return _with(state, index, slot._replace(program=after))
        if edge.broken is not None:
            raise AssertionError(f"{program.message.task} is broken") from edge.broken
        idle = _with(state, index, slot._replace(program=None))
        if worker(slot.process) in self.ended(state):
            return self.crash(idle, index)  # its next heartbeat finds no row, and it stops
        return self._left(idle, index) if STOP in after.heard else idle

    def _may_be_late(self, edge: Edge | None) -> bool:
        late_delete = isinstance(edge, Request) and edge.op == "delete"
        return not late_delete or Fault.LATE_DELETE in self.world.kinds

    def holds(self, state: State, slot: Slot, program: Program) -> bool:
        """Say whether the rows grant the claim that a program works under."""
        message, job = program.message, self.rows.job(state.rows)
        slices = self.rows.slices(state.rows)
        held = [job] if message.number is None else [row for row in slices if row["number"] == message.number]
        ours = (message.token, message.epoch, str(worker(slot.process)))
        return any((row["token"], job["epoch"], row["worker"]) == ours for row in held)

    def _is_lost(self, state: State, slot: Slot, program: Program) -> bool:
        message = program.message
        claim = Claim(JOB, message.number, message.token, message.epoch, worker(slot.process))
        aborts = message.task.endswith("abort")
        return bool(
            self.rows.run(
                state.rows, f"lost {claim} {aborts}", lambda tx: leases.lost_claims(tx, [(claim, aborts)], claim.worker)
            ).found
        )

    def crash(self, state: State, index: int) -> State:
        """End a process; another one starts in its place."""
        process = state.processes

        def start(tx: Tx) -> None:
            workers.start_worker(tx, worker(process), "w", slots=1, roots=[])

        number = self.rows.run(state.rows, f"start {process}", start, with_crew=True).rows
        return _with(state._replace(rows=number, processes=process + 1), index, Slot(process))

    def _left(self, state: State, index: int) -> State:
        """End a process of its own will."""
        gone = worker(state.slots[index].process)
        number = self.rows.run(
            state.rows, f"stop {gone}", lambda tx: workers.stop_worker(tx, gone), with_crew=True
        ).rows
        return self.crash(state._replace(rows=number), index)

    def _lapse(self, state: State, program: Program) -> State:
        number = program.message.number

        def lapse(tx: Tx) -> None:
            where = "job SET lease_until = %s" if number is None else "slice SET lease_until = %s"
            rest = "worker IS NOT NULL" if number is None else f"state = 'sending' AND number = {number:d}"
            tx.execute(f"UPDATE {where} WHERE {rest}", [OVER])
            transitions.rescue(tx)

        return state._replace(rows=self.rows.run(state.rows, f"lapse {number}", lapse, with_crew=True).rows)

    def _who(self, slot: Slot, program: Program) -> str:
        message = program.message
        what = message.task.removeprefix("sliceway.") + ("" if message.number is None else f" {message.number}")
        return f"worker {slot.process}, {what} (token {message.token & 0xFFFF}, epoch {message.epoch})"

    def _spent(self, state: State) -> State:
        return state._replace(left=state.left._replace(faults=state.left.faults - 1))

    # --- the dispatcher ---

    def turn(self, state: State) -> Next:
        """Let the dispatcher dispatch all that is due; every wait is over by then."""
        change = self.rows.run(state.rows, "turn", _turn)
        posted = state.posted | {Message.of(row) for row in change.found}
        return Next("dispatcher: dispatches what is due", state._replace(rows=change.rows, posted=posted))

    def rescue(self, state: State) -> Next:
        """Let the dispatcher take back what ended workers hold."""
        change = self.rows.run(state.rows, "rescue", lambda tx: len(transitions.rescue(tx)), with_crew=True)
        return Next("dispatcher: takes back what ended workers hold", state._replace(rows=change.rows))

    def republished(self, state: State) -> list[Message]:
        """Return what the dispatcher publishes after everything in the broker was lost."""
        change = self.rows.run(state.rows, "redispatch", transitions.redispatch)
        return [Message.of(row) for row in change.found]

    def _deaths(self, state: State) -> Iterator[Next]:
        for process in self.silent(state):
            yield self.take_for_dead(state, process)
        if state.left.faults and Fault.PAUSE in self.world.kinds:
            ended = self.ended(state)
            for slot in state.slots:
                edge = slot.program and self.programs.edge(worker(slot.process), slot.program)
                if worker(slot.process) not in ended and self._may_be_late(edge):
                    yield self.take_for_dead(self._spent(state), slot.process, paused=True)

    def silent(self, state: State) -> list[int]:
        """Return the processes that are no more, and of which the dispatcher does not know it yet."""
        there, ended = {slot.process for slot in state.slots}, self.ended(state)
        return [process for process in range(state.processes) if process not in there and worker(process) not in ended]

    def take_for_dead(self, state: State, process: int, *, paused: bool = False) -> Next:
        """Let the dispatcher end a worker that was silent for too long, and take back what it held."""

        def rescue(tx: Tx) -> None:
            tx.execute("UPDATE worker SET heartbeat_at = %s WHERE id = %s", [OVER, worker(process)])
            workers.end_dead_workers(tx, DEAD_AFTER_S)
            transitions.rescue(tx)

        change = self.rows.run(state.rows, f"rescue {process}", rescue, with_crew=True)
        why = "though it is only held up" if paused else "and takes back what it held"
        words = f"dispatcher: takes worker {process} for dead, {why}"
        return Next(words, state._replace(rows=change.rows), fault=paused)

    # --- the others ---

    def _others(self, state: State) -> Iterator[Next]:
        left, job = state.left, self.rows.job(state.rows)
        if left.cancels and job["state"] not in FINAL:
            change = self.rows.run(state.rows, "cancel", lambda tx: transitions.cancel(tx, JOB, "client"))
            yield self._asked(state, change, left._replace(cancels=left.cancels - 1), "cancels")
        if left.retries and job["state"] in {JobState.FAILED, JobState.CANCELLED}:
            change = self.rows.run(state.rows, "retry", lambda tx: transitions.retry(tx, JOB, "client"))
            yield self._asked(state, change, left._replace(retries=left.retries - 1), "retries")
        if left.strangers:
            for deed in sorted(self.world.deeds):
                store = strange(state.store, deed, self.world.foreign())
                if store != state.store:
                    after = state._replace(store=store, left=left._replace(strangers=left.strangers - 1))
                    yield Next(f"stranger: {deed}s an object or upload at the key", after)
        if left.faults and Fault.EXPIRED in self.world.kinds and state.store.upload is not None:
            gone = replace(state.store, upload=None)
            yield Next("store: forgets the unfinished upload", self._spent(state)._replace(store=gone), fault=True)

    def _asked(self, state: State, change: Change, left: Left, words: str) -> Next:
        return Next(f"client: {words}", state._replace(rows=change.rows, left=left), refused=change.refused)


def _with(state: State, index: int, slot: Slot) -> State:
    return state._replace(slots=(*state.slots[:index], slot, *state.slots[index + 1 :]))


def _turn(tx: Tx) -> list[Row]:
    for table in ("job", "slice"):
        tx.execute(f"UPDATE {table} SET not_before = %s WHERE not_before IS NOT NULL", [OVER])  # noqa: S608
    transitions.promote_due(tx)
    rows = due.due_steps(tx, per_lane=9, blocked=[], whole_bytes=0) + due.due_slices(
        tx, per_lane=9, window=9, blocked=[]
    )
    steps = [row["job_id"] for row in rows if row["number"] is None]
    return transitions.dispatch(
        tx, steps, [(row["job_id"], row["number"]) for row in rows if row["number"] is not None]
    )


def _as_heard(rows: list[Row]) -> list[Row]:
    return [{name: _reduced(name, value) for name, value in row.items()} for row in rows]


def _reduced(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return NOW
    if isinstance(value, timedelta):
        return timedelta()
    return {"code": value["code"]} if name == "error" and value else value
