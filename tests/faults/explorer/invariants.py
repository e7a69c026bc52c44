"""The invariants that every transition must keep, and the check that the job ends from every state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.faults.explorer.edges import Statement, TaskRun
from tests.faults.explorer.state import ForeignAction, Transition, worker
from tests.faults.explorer.store_model import OURS, THEIRS
from worker.jobs.states import FINAL, MOVES, JobState, SliceState, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.explorer.rows import Row
    from tests.faults.explorer.state import State
    from tests.faults.explorer.successors import Successors

#: A job that has not started is cancelled at once, in two moves of one statement.
_MOVES = {(move.source, move.target) for move in MOVES} | {(JobState.QUEUED, JobState.CANCELLED)}
#: Statements of a task that need no claim.
_WITHOUT_CLAIM = frozenset({"open_breaker", "close_breaker"})
_CLAIMS = frozenset({"claim_step", "claim_slice"})


class Invariants:
    """The invariants of a world."""

    def __init__(self, successors: Successors) -> None:
        self._successors, self._world, self._rows = successors, successors.world, successors.rows
        self._ending: set[State] = set()

    def violation(self, before: State, transition: Transition) -> str:
        """Return the first violation that a transition causes; empty if none."""
        return next(self._violations(before, transition), "")

    def _violations(self, before: State, transition: Transition) -> Iterator[str]:
        after = transition.state
        if after.store.violation:
            yield f"we {after.store.violation}"
        old, new = before.store.object_there, after.store.object_there
        if (
            old is not None
            and new is not None
            and old.owner == THEIRS
            and new.owner == OURS
            and not self._world.overwrite
        ):
            yield "we replaced another client's object, and the job may not overwrite"
        if self._world.marked and len(set(after.store.finished)) < len(after.store.finished):
            yield "a second upload of the same epoch was finished"
        if before.rows != after.rows:
            yield from self._of_rows(before, after)
            yield from self._of_claims(before, transition)
        yield from self._of_checkpoints(after)
        yield from self._of_ends(before, after)

    def _of_rows(self, before: State, after: State) -> Iterator[str]:
        old, new = self._rows.job(before.rows), self._rows.job(after.rows)
        if old["state"] != new["state"] and (old["state"], new["state"]) not in _MOVES:
            yield f"the job went from {old['state']} to {new['state']}, which the table of moves does not have"
        if new["epoch"] < old["epoch"] or new["token"] < old["token"]:
            yield "the job's epoch or token fell"
        tokens = {row["number"]: row["token"] for row in self._rows.slices(before.rows)}
        slices = self._rows.slices(after.rows)
        if any(row["token"] < tokens.get(row["number"], 0) for row in slices):
            yield "a slice's token fell"
        left = sum(row["state"] != SliceState.DONE for row in slices)
        if new["state"] in {JobState.UPLOADING, JobState.FINISHING} and new["slices_left"] != left:
            yield f"slices_left is {new['slices_left']}, and {left} are left"
        if new["state"] == JobState.UPLOADING and left == 0:
            yield "the job is uploading, and nothing is left to be sent"

    def _of_claims(self, before: State, transition: Transition) -> Iterator[str]:
        """A task changes rows only while its worker holds the claim that the task is for."""
        edge, thread = transition.edge, transition.thread
        if not isinstance(edge, Statement) or thread is None or edge.name in _WITHOUT_CLAIM:
            return
        if before.rows.job == transition.state.rows.job:
            return
        ours = str(worker(thread.process))
        message = _message(edge)
        job = self._rows.job(before.rows)
        state = job["state"]
        row = _claimed(self._rows.slices(before.rows), job, message["number"])
        if edge.name in _CLAIMS and message["number"] is not None and state != JobState.UPLOADING:
            yield f"a slice was claimed of a job that is {state}"
        if row is None or (row["token"], job["epoch"]) != (message["token"], message["epoch"]):
            yield f"{edge.name} changed rows under an older token or epoch"
        elif edge.name in _CLAIMS:
            due = (Step.DISPATCHED, SliceState.DISPATCHED)
            if _state(row) not in due and row["worker"] != ours:
                yield f"{edge.name} took what another worker holds"
        elif row["worker"] != ours or _state(row) not in (Step.RUNNING, SliceState.SENDING):
            yield f"{edge.name} changed rows without holding the claim"

    def _of_checkpoints(self, state: State) -> Iterator[str]:
        job, upload = self._rows.job(state.rows), state.store.upload
        if upload is None:
            return
        held = dict(upload.held)
        content, size = self._world.content, upload.slice_bytes
        if upload.owner == OURS and any(content[offset : offset + size] != found for offset, found in held.items()):
            yield "our upload at the store has wrong bytes"
        if job["session"] is not None and job["session"]["session"] == upload.session:
            for row in self._rows.slices(state.rows):
                offset = row["offset_bytes"]
                if row["state"] == SliceState.DONE and offset not in held:
                    yield f"slice {row['number']} is recorded as done, and the store does not have it"
                elif row["state"] == SliceState.DONE and held[offset] != content[offset : offset + size]:
                    yield f"slice {row['number']} is recorded as done, and the store has other bytes"

    def _of_ends(self, before: State, after: State) -> Iterator[str]:
        job, old, store = self._rows.job(after.rows), self._rows.job(before.rows), after.store
        there = store.object_there
        other_acted = (
            after.budget.foreign_actions < self._world.foreign_actions
            or self._world.existed
            or self._world.predecessor in {ForeignAction.PUT, ForeignAction.BEGIN}
        )
        if job["state"] == JobState.SUCCEEDED:
            if self._world.verified and job["result"]["proof"] != "digest":
                yield f"the job asked for verify: file, and has succeeded by {job['result']['proof']}"
            if not store.ours_seen:
                yield "the job has succeeded, and its object never was there"
            if not other_acted and (there is None or there.content != self._world.content):
                yield "the job has succeeded, and its object is not there"
        entered = None if old["state"] == job["state"] else job["state"]
        bound = self._world.slices and self._world.marked  # else a late request may still publish
        if entered == JobState.CANCELLED and bound and there is not None and there.owner == OURS:
            yield "the job was cancelled, and its own object is there"
        if entered == JobState.FAILED and not other_acted and not self._conflicted_with_itself(after, job):
            yield f"the job failed as {job['error']['code']}, and no other client was at the key"

    def _conflicted_with_itself(self, after: State, job: Row) -> bool:
        """A known limit: after a lost init, a late init of the job's own looks like another client's upload."""
        return self._world.faults - after.budget.faults > 1 and job["error"]["code"] == "upload_in_progress"

    # --- that it ends ---

    def stuck(self, state: State) -> list[str]:
        """Return the steps that follow without further faults, if the job does not end by them; else nothing.

        A worker that was declared dead does not return, and every published message is lost once more: the dispatcher
        must end the job from the rows alone.
        """
        seen: dict[State, None] = {}
        steps: list[str] = []
        while state not in self._ending and self._rows.job(state.rows)["state"] not in FINAL:
            if state in seen:
                return [*steps, "and so on for ever"]
            seen[state] = None
            transition = self._fair_step(state)
            if transition is None:
                return [*steps, "and nothing moves it on"]
            steps.append(transition.description)
            if violation := self.violation(state, transition):
                return [*steps, violation]
            state = transition.state
        self._ending.update(seen)
        return []

    def _fair_step(self, state: State) -> Transition | None:
        successors = self._successors
        ended = successors.ended(state)
        for index, thread in enumerate(state.threads):
            if worker(thread.process) in ended:
                return Transition(f"worker {thread.process} ends", successors.crash(state, index))
        for process in successors.silent(state):
            return successors.declare_dead(state, process)
        for index, thread in enumerate(state.threads):
            if thread.run is not None:
                return successors.step(state, index, thread.run)
        for transition in (successors.rescue(state), successors.dispatch(state)):
            if transition.state.rows != state.rows:
                return transition
        for message in successors.republished(state):
            transition = successors.step(state, 0, TaskRun(message))
            if transition.state != state:
                return transition
        return None


def _message(edge: Statement) -> dict[str, Any]:
    """Return the claim that a statement names."""
    if edge.name == "checkpoint":
        [asked, *_] = json.loads(edge.params["slices"])
        return {name: asked[name] for name in ("number", "token", "epoch")}
    return {name: edge.params.get(name) for name in ("number", "token", "epoch")}


def _claimed(slices: Sequence[Row], job: Row, number: int | None) -> Row | None:
    return job if number is None else next((row for row in slices if row["number"] == number), None)


def _state(row: Row) -> str:
    state: str = row["step"] if "step" in row else row["state"]
    return state
