"""The successors of a state: everything that can happen next in a small world.

A world is one job, two workers of one thread each, a dispatcher, a client, another client of the store, and a store. A
state is a value, and `Successors` yields each transition from it with a description. A published message stays
deliverable for ever, to any worker and any number of times: this covers loss, delay, reordering and duplicates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.faults.explorer import edges
from tests.faults.explorer.edges import Ended, Message, Request, Statement, TaskRun
from tests.faults.explorer.rows import OVER, canonical_result
from tests.faults.explorer.state import JOB, SLICE_BYTES, Budget, Fault, ForeignAction, State, Transition, WorkerThread
from tests.faults.explorer.state import worker as identity
from tests.faults.explorer.store_model import Store, act_as_other_client, respond
from worker.jobs import control, due, leases, transitions, workers
from worker.jobs.leases import Claim
from worker.jobs.states import FINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.explorer.edges import Edge
    from tests.faults.explorer.replay import TaskReplayer
    from tests.faults.explorer.rows import Change, Rows
    from tests.faults.explorer.state import World
    from worker.db.pool import Connection
    from worker.jobs.command_results import CommandResult
    from worker.jobs.rows import Dispatched

DEAD_AFTER_S = 10.0


class Successors:
    """Everything that can follow a state."""

    def __init__(self, world: World, rows: Rows, replayer: TaskReplayer) -> None:
        self.world, self.rows, self.replayer = world, rows, replayer

    def first(self, new: transitions.NewJob) -> State:
        """Return the first state: the job is enqueued, two workers live."""

        def enqueue(tx: Connection) -> None:
            transitions.enqueue(tx, [new], "client")
            for process in range(2):
                workers.start_worker(tx, identity(process), "w", slots=1, roots=[])

        world = self.world
        store = Store(SLICE_BYTES, world.content, world.named)
        if world.predecessor is not None:
            store = act_as_other_client(store, world.predecessor, world.foreign_content)
        if world.existed:
            store = act_as_other_client(store, ForeignAction.PUT, world.foreign_content)
        budget = Budget(world.faults, world.cancels, world.retries, world.foreign_actions)
        rows = self.rows.run(self.rows.empty, "enqueue", enqueue, with_workers=True).rows
        return State(rows, store, frozenset(), (WorkerThread(0), WorkerThread(1)), budget, 2)

    def after(self, state: State) -> Iterator[Transition]:
        """Yield whatever can happen next."""
        for index, thread in enumerate(state.threads):
            if thread.run is not None:
                yield from self._running(state, index, thread, thread.run)
            elif not self._has_twin(state, index):
                for message in sorted(state.published, key=repr):
                    yield self.step(state, index, TaskRun(message))
        yield self.dispatch(state)
        yield self.rescue(state)
        yield from self._deaths(state)
        yield from self._others(state)

    def _has_twin(self, state: State, index: int) -> bool:
        """Say whether an idle thread before this one is equivalent: the two differ by their workers' names only."""
        ended = self.ended(state)
        here = identity(state.threads[index].process)
        return any(other.run is None and not {identity(other.process), here} & ended for other in state.threads[:index])

    def ended(self, state: State) -> set[UUID]:
        """Return the workers that the rows say have ended."""
        return {UUID(row["id"]) for row in self.rows.workers(state.rows) if row["ended_at"] is not None}

    # --- a worker ---

    def step(self, state: State, index: int, run: TaskRun) -> Transition:
        """Execute a thread's next edge and give the task its result."""
        thread = state.threads[index]
        edge, after, result = self._effect(state, thread, run)
        return Transition(
            f"{_name(thread, run)}: {edge.description}", self._feed(after, index, run, result), edge, thread
        )

    def _effect(self, state: State, thread: WorkerThread, run: TaskRun) -> tuple[Edge, State, int]:
        """Return a thread's next edge, the state after its effect, and the number of its result."""
        edge = self.replayer.edge(identity(thread.process), run)
        if isinstance(edge, Statement):
            change = self.rows.statement(state.rows, edge.name, edge.params)
            result = self.replayer.number(edges.QueryResult(canonical_result(change.result)))
            return edge, state._replace(rows=change.rows), result
        assert isinstance(edge, Request), edge
        store, code, data = respond(state.store, edge.op, edge.fields, edge.content)
        return edge, state._replace(store=store), self.replayer.number(edges.StoreAnswer(code, data))

    def _running(self, state: State, index: int, thread: WorkerThread, run: TaskRun) -> Iterator[Transition]:
        normal = self.step(state, index, run)
        yield normal
        if state.budget.faults == 0:
            return
        kinds, spent, name = self.world.kinds, _spend_fault(state), _name(thread, run)
        edge, effect, _ = self._effect(spent, thread, run)
        answer_lost = Fault.NO_COMMIT_HEARD if isinstance(edge, Statement) else Fault.NO_ANSWER
        if answer_lost in kinds and (isinstance(edge, Statement) or effect != spent):
            after = self._feed(effect, index, run, edges.CONNECTION_LOST)
            yield Transition(f"{normal.description}; its answer is lost", after, edge, thread, fault=True)
        if isinstance(edge, Request):
            if Fault.NOT_SENT in kinds:
                after = self._feed(spent, index, run, edges.CONNECTION_LOST)
                yield Transition(f"{normal.description}, lost on the way", after, fault=True)
            if Fault.STOP in kinds and edges.STOP_REQUESTED not in run.inputs:
                after = self._feed(spent, index, run, edges.STOP_REQUESTED)
                yield Transition(f"{name}: has to stop", after, fault=True)
            if edges.CLAIM_LOST not in run.inputs and self._is_lost(state, thread, run):
                after = self._feed(state, index, run, edges.CLAIM_LOST)
                yield Transition(f"{name}: learns that its claim is lost", after)
        if Fault.CRASH in kinds:
            yield Transition(f"{name}: crashes before {edge.description}", self.crash(spent, index), fault=True)
        if Fault.LAPSE in kinds and self._may_be_late(edge) and self.holds(state, thread, run):
            yield Transition(f"{name}: its lease ends", self._lapse(spent, run), fault=True)

    def _feed(self, state: State, index: int, run: TaskRun, number: int) -> State:
        """Give a task an input and run it to its next edge; a task that ends leaves its thread idle."""
        thread = state.threads[index]
        after = run._replace(inputs=(*run.inputs, number))
        if (
            Fault.CUT_OFF not in self.world.kinds
            and edges.CLAIM_LOST not in after.inputs
            and not self.holds(state, thread, run)
        ):
            after = after._replace(inputs=(*after.inputs, edges.CLAIM_LOST))
        edge = self.replayer.edge(identity(thread.process), after)
        if not isinstance(edge, Ended):
            return _with(state, index, thread._replace(run=after))
        if edge.bug is not None:
            raise AssertionError(f"{run.message.task} raised") from edge.bug
        idle = _with(state, index, thread._replace(run=None))
        if identity(thread.process) in self.ended(state):
            return self.crash(idle, index)  # its next heartbeat finds no row, and it stops
        return self._stop(idle, index) if edges.STOP_REQUESTED in after.inputs else idle

    def _may_be_late(self, edge: Edge | None) -> bool:
        late_delete = isinstance(edge, Request) and edge.op == "delete"
        return not late_delete or Fault.LATE_DELETE in self.world.kinds

    def holds(self, state: State, thread: WorkerThread, run: TaskRun) -> bool:
        """Say whether the rows grant the claim that a task works under."""
        message, job = run.message, self.rows.job(state.rows)
        slices = self.rows.slices(state.rows)
        held = [job] if message.number is None else [row for row in slices if row["number"] == message.number]
        ours = (message.token, message.epoch, str(identity(thread.process)))
        return any((row["token"], job["epoch"], row["worker"]) == ours for row in held)

    def _is_lost(self, state: State, thread: WorkerThread, run: TaskRun) -> bool:
        message = run.message
        claim = Claim(JOB, message.number, message.token, message.epoch, identity(thread.process))
        aborts = message.task.endswith("abort")

        def lost(tx: Connection) -> Any:
            return leases.lost_claims(tx, [(claim, aborts)], claim.worker)

        return bool(self.rows.run(state.rows, f"lost {claim} {aborts}", lost).result)

    def crash(self, state: State, index: int) -> State:
        """End a process; another one starts in its place."""
        process = state.processes

        def start(tx: Connection) -> None:
            workers.start_worker(tx, identity(process), "w", slots=1, roots=[])

        rows = self.rows.run(state.rows, f"start {process}", start, with_workers=True).rows
        return _with(state._replace(rows=rows, processes=process + 1), index, WorkerThread(process))

    def _stop(self, state: State, index: int) -> State:
        """Let a process stop in order."""
        gone = identity(state.threads[index].process)
        change = self.rows.run(state.rows, f"stop {gone}", lambda tx: workers.stop_worker(tx, gone), with_workers=True)
        return self.crash(state._replace(rows=change.rows), index)

    def _lapse(self, state: State, run: TaskRun) -> State:
        number = run.message.number

        def lapse(tx: Connection) -> None:
            where = "job SET lease_until = %s" if number is None else "slice SET lease_until = %s"
            rest = "worker IS NOT NULL" if number is None else f"state = 'sending' AND number = {number:d}"
            tx.execute(f"UPDATE {where} WHERE {rest}", [OVER])
            transitions.rescue(tx)

        return state._replace(rows=self.rows.run(state.rows, f"lapse {number}", lapse, with_workers=True).rows)

    # --- the dispatcher ---

    def dispatch(self, state: State) -> Transition:
        """Let the dispatcher dispatch all that is due; every wait is over by then."""
        change = self.rows.run(state.rows, "dispatch", _dispatch)
        published = state.published | {Message.of(item) for item in change.result}
        return Transition("dispatcher: dispatches what is due", state._replace(rows=change.rows, published=published))

    def rescue(self, state: State) -> Transition:
        """Let the dispatcher reclaim what ended workers hold."""
        change = self.rows.run(state.rows, "rescue", lambda tx: len(transitions.rescue(tx)), with_workers=True)
        return Transition("dispatcher: reclaims what ended workers hold", state._replace(rows=change.rows))

    def republished(self, state: State) -> list[Message]:
        """Return what the dispatcher publishes after the broker has lost everything."""
        change = self.rows.run(state.rows, "redispatch", transitions.redispatch)
        return [Message.of(item) for item in change.result]

    def _deaths(self, state: State) -> Iterator[Transition]:
        for process in self.silent(state):
            yield self.declare_dead(state, process)
        if state.budget.faults and Fault.PAUSE in self.world.kinds:
            ended = self.ended(state)
            for thread in state.threads:
                edge = thread.run and self.replayer.edge(identity(thread.process), thread.run)
                if identity(thread.process) not in ended and self._may_be_late(edge):
                    yield self.declare_dead(_spend_fault(state), thread.process, paused=True)

    def silent(self, state: State) -> list[int]:
        """Return the processes that have ended, and whose end the dispatcher does not know yet."""
        alive, ended = {thread.process for thread in state.threads}, self.ended(state)
        return [each for each in range(state.processes) if each not in alive and identity(each) not in ended]

    def declare_dead(self, state: State, process: int, *, paused: bool = False) -> Transition:
        """Let the dispatcher end a worker that was silent for too long, and reclaim what it held."""

        def rescue(tx: Connection) -> None:
            tx.execute("UPDATE worker SET heartbeat_at = %s WHERE id = %s", [OVER, identity(process)])
            workers.end_dead_workers(tx, DEAD_AFTER_S)
            transitions.rescue(tx)

        change = self.rows.run(state.rows, f"rescue {process}", rescue, with_workers=True)
        why = "although it is only paused" if paused else "and reclaims what it held"
        description = f"dispatcher: declares worker {process} dead, {why}"
        return Transition(description, state._replace(rows=change.rows), fault=paused)

    # --- clients and the store ---

    def _others(self, state: State) -> Iterator[Transition]:
        budget, job = state.budget, self.rows.job(state.rows)
        if budget.cancels and job["state"] not in FINAL:
            change = self.rows.run(state.rows, "cancel", lambda tx: _ask(control.cancel, tx))
            yield _asked(state, change, budget._replace(cancels=budget.cancels - 1), "cancels")
        if budget.retries and job["state"] in {JobState.FAILED, JobState.CANCELLED}:
            change = self.rows.run(state.rows, "retry", lambda tx: _ask(control.retry, tx))
            yield _asked(state, change, budget._replace(retries=budget.retries - 1), "retries")
        if budget.foreign_actions:
            less = budget._replace(foreign_actions=budget.foreign_actions - 1)
            for action in sorted(self.world.foreign_kinds):
                store = act_as_other_client(state.store, action, self.world.foreign_content)
                if store != state.store:
                    yield Transition(f"other client: {action}", state._replace(store=store, budget=less))
        if budget.faults and Fault.EXPIRED in self.world.kinds and state.store.upload is not None:
            after = _spend_fault(state)._replace(store=replace(state.store, upload=None))
            yield Transition("store: drops the unfinished upload", after, fault=True)


def _name(thread: WorkerThread, run: TaskRun) -> str:
    message = run.message
    what = message.task.removeprefix("sliceway.") + ("" if message.number is None else f" {message.number}")
    return f"worker {thread.process}, {what} (token {message.token & 0xFFFF}, epoch {message.epoch})"


def _ask(command: Callable[[Connection, list[UUID], str], list[CommandResult]], tx: Connection) -> JobState:
    (result,) = command(tx, [JOB], "client")
    return result.state_or_raise()


def _asked(state: State, change: Change, budget: Budget, action: str) -> Transition:
    return Transition(f"client: {action}", state._replace(rows=change.rows, budget=budget))


def _spend_fault(state: State) -> State:
    return state._replace(budget=state.budget._replace(faults=state.budget.faults - 1))


def _with(state: State, index: int, thread: WorkerThread) -> State:
    return state._replace(threads=(*state.threads[:index], thread, *state.threads[index + 1 :]))


def _dispatch(tx: Connection) -> list[Dispatched]:
    for table in ("job", "slice"):
        tx.execute(f"UPDATE {table} SET not_before = %s WHERE not_before IS NOT NULL", [OVER])  # noqa: S608
    transitions.promote_due(tx)
    steps = due.due_steps(tx, per_lane=9, blocked=[], whole_bytes=0)
    slices = due.due_slices(tx, per_lane=9, window=9, blocked=[])
    return transitions.dispatch(
        tx,
        [item.job_id for item in steps],
        [(item.job_id, item.number) for item in slices if item.number is not None],
    )
