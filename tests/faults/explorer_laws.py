"""What must hold after everything that happens, and that from everywhere the job comes to an end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.faults.explorer_edges import Program, Statement
from tests.faults.explorer_state import Next, Stranger, worker
from tests.faults.explorer_store import OURS, THEIRS
from worker.jobs.states import FINAL, MOVES, JobState, SliceState, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.explorer_rows import Row
    from tests.faults.explorer_state import State
    from tests.faults.explorer_world import Moves

#: A job that was never begun is cancelled at once, in two moves of one statement.
_MOVES = {(move.source, move.target) for move in MOVES} | {(JobState.QUEUED, JobState.CANCELLED)}
#: Statements of a worker that are no move of its claim.
_NO_MOVES = frozenset({"open_breaker", "close_breaker"})
_CLAIMS = frozenset({"claim_step", "claim_slice"})


class Laws:
    """The laws of a world."""

    def __init__(self, moves: Moves) -> None:
        self._moves, self._world, self._rows = moves, moves.world, moves.rows
        self._good: set[State] = set()

    def broken(self, before: State, happened: Next) -> str:
        """Return which law what happened has broken, in words; empty if none."""
        return next(self._broken(before, happened), "")

    def _broken(self, before: State, happened: Next) -> Iterator[str]:
        after = happened.state
        if after.store.harm:
            yield f"we {after.store.harm}"
        old, new = before.store.thing, after.store.thing
        if (
            old is not None
            and new is not None
            and old.owner == THEIRS
            and new.owner == OURS
            and not self._world.overwrite
        ):
            yield "we replaced another's object, and the job may not overwrite"
        if self._world.marked and len(set(after.store.finished)) < len(after.store.finished):
            yield "a second upload of the same epoch was finished"
        if before.rows != after.rows:
            yield from self._rows_broken(before, after)
            yield from self._stale(before, happened)
        yield from self._checkpoints_broken(after)
        yield from self._ends_broken(before, after)

    def _rows_broken(self, before: State, after: State) -> Iterator[str]:
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

    def _stale(self, before: State, happened: Next) -> Iterator[str]:
        """Who changes rows with a statement of a task must hold the claim that the task is for."""
        edge, slot = happened.edge, happened.slot
        if not isinstance(edge, Statement) or slot is None or edge.name in _NO_MOVES:
            return
        if before.rows.work == happened.state.rows.work:
            return
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
            if _state(row) not in due and row["worker"] != str(worker(slot.process)):
                yield f"{edge.name} took what another worker holds"
        elif row["worker"] != str(worker(slot.process)) or _state(row) not in (Step.RUNNING, SliceState.SENDING):
            yield f"{edge.name} changed rows without holding the claim"

    def _checkpoints_broken(self, state: State) -> Iterator[str]:
        job, upload = self._rows.job(state.rows), state.store.upload
        if upload is None:
            return
        held = dict(upload.held)
        content, size = self._world.content, upload.slice_bytes
        if upload.owner == OURS and any(content[offset : offset + size] != found for offset, found in held.items()):
            yield "the store holds wrong bytes of ours"
        if job["session"] is not None and job["session"]["session"] == upload.session:
            for row in self._rows.slices(state.rows):
                offset = row["offset_bytes"]
                if row["state"] == SliceState.DONE and offset not in held:
                    yield f"slice {row['number']} is recorded as done, and the store does not have it"
                elif row["state"] == SliceState.DONE and held[offset] != content[offset : offset + size]:
                    yield f"slice {row['number']} is recorded as done, and the store has other bytes"

    def _ends_broken(self, before: State, after: State) -> Iterator[str]:
        job, old, store = self._rows.job(after.rows), self._rows.job(before.rows), after.store
        acted = (
            after.left.strangers < self._world.strangers
            or self._world.existed
            or self._world.predecessor in {Stranger.PUT, Stranger.BEGIN}
        )
        if job["state"] == JobState.SUCCEEDED:
            if self._world.verified and job["result"]["proof"] != "digest":
                yield f"the job asked for verify: file, and has succeeded by {job['result']['proof']}"
            if not store.ours_seen:
                yield "the job has succeeded, and its object never was there"
            if not acted and (store.thing is None or store.thing.content != self._world.content):
                yield "the job has succeeded, and its object is not there"
        entered = None if old["state"] == job["state"] else job["state"]
        bound = self._world.slices and self._world.marked  # else a late request may still publish
        if entered == JobState.CANCELLED and bound and store.thing is not None and store.thing.owner == OURS:
            yield "the job was cancelled, and its own object is there"
        if entered == JobState.FAILED and not acted and not self._took_itself_for_another(after, job):
            yield f"the job failed as {job['error']['code']}, and nobody but us was at the key"

    def _took_itself_for_another(self, after: State, job: Row) -> bool:
        """Known: a late init of the job's own, after an earlier one was lost, is taken for somebody at the key."""
        return self._world.faults - after.left.faults > 1 and job["error"]["code"] == "upload_in_progress"

    # --- that it ends ---

    def stuck(self, state: State) -> list[str]:
        """Return what happens from here if nothing goes wrong any more, if that leads to no end; else nothing.

        Whoever was taken for dead does not come back, and whatever was published is lost once more: what must end the
        job is what the dispatcher does from the rows alone.
        """
        path: list[State] = []
        words: list[str] = []
        seen: set[State] = set()
        while state not in self._good and self._rows.job(state.rows)["state"] not in FINAL:
            if state in seen:
                return [*words, "and so on for ever"]
            seen.add(state)
            path.append(state)
            happened = self._fair(state)
            if happened is None:
                return [*words, "and nothing moves it on"]
            words.append(happened.words)
            if law := self.broken(state, happened):
                return [*words, law]
            state = happened.state
        self._good.update(path)
        return []

    def _fair(self, state: State) -> Next | None:
        ended = self._moves.ended(state)
        for index, slot in enumerate(state.slots):
            if worker(slot.process) in ended:
                return Next(f"worker {slot.process} ends", self._moves.crash(state, index))
        for process in self._moves.silent(state):
            return self._moves.take_for_dead(state, process)
        for index, slot in enumerate(state.slots):
            if slot.program is not None:
                return self._moves.step(state, index, slot.program)
        for happened in (self._moves.rescue(state), self._moves.turn(state)):
            if happened.state.rows != state.rows:
                return happened
        for message in self._moves.republished(state):
            happened = self._moves.step(state, 0, Program(message))
            if happened.state != state:
                return happened
        return None


def _message(edge: Statement) -> dict[str, Any]:
    """Return what a statement says that its claim is."""
    if edge.name == "checkpoint":
        [asked, *_] = json.loads(edge.params["slices"])
        return {name: asked[name] for name in ("number", "token", "epoch")}
    return {name: edge.params.get(name) for name in ("number", "token", "epoch")}


def _claimed(slices: Sequence[Row], job: Row, number: int | None) -> Row | None:
    return job if number is None else next((row for row in slices if row["number"] == number), None)


def _state(row: Row) -> str:
    state: str = row["step"] if "step" in row else row["state"]
    return state
