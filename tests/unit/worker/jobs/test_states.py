"""The table of states: every wait can end, only known states are named, and the manual shows the same table."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from worker.jobs.states import FINAL, LIVE, MOVES, SLICE_MOVES, STEPS, Event, JobState, Move, SliceState, Step, may

MANUAL = Path(__file__).parents[4] / "docs" / "states.md"


def reachable_from(state: JobState) -> set[JobState]:
    seen, edge = {state}, {state}
    while edge:
        edge = {move.target for move in MOVES if move.source in edge} - seen
        seen |= edge
    return seen


def test_every_state_is_live_or_final() -> None:
    assert set(LIVE) | set(FINAL) == set(JobState)
    assert not set(LIVE) & set(FINAL)


def test_every_state_has_its_steps_and_an_ended_job_none_to_do() -> None:
    assert set(STEPS) == set(JobState)
    assert all(steps for steps in STEPS.values())
    assert {STEPS[state] for state in FINAL} == {(Step.IDLE,)}


@pytest.mark.parametrize("state", LIVE)
def test_every_live_state_can_end_in_every_way(state: JobState) -> None:
    can = reachable_from(state)
    assert {JobState.SUCCEEDED, JobState.CANCELLED} <= can
    assert JobState.FAILED in can or state is JobState.CANCELLING


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.QUEUED])
def test_every_state_can_be_reached(state: JobState) -> None:
    assert state in reachable_from(JobState.QUEUED)


def test_only_an_operator_moves_an_ended_job_and_none_moves_a_succeeded_one() -> None:
    out_of_final = {(move.source, move.event, move.target) for move in MOVES if move.source in FINAL}
    assert out_of_final == {
        (JobState.FAILED, Event.RETRIED, JobState.QUEUED),
        (JobState.CANCELLED, Event.RETRIED, JobState.QUEUED),
    }


def test_a_cancelled_job_goes_nowhere_but_to_its_end() -> None:
    targets = {move.target for move in MOVES if move.source is JobState.CANCELLING}
    assert targets == {JobState.CANCELLING, JobState.CANCELLED, JobState.SUCCEEDED}


def test_every_live_state_can_be_cancelled() -> None:
    cancellable = {move.source for move in MOVES if move.event is Event.CANCEL_REQUESTED}
    assert cancellable == set(LIVE) - {JobState.CANCELLING}


def test_the_table_has_each_move_once_and_may_reads_it() -> None:
    assert max(Counter((move.source, move.event) for move in MOVES).values()) == 1
    listed = {(move.source, move.event, move.target) for move in MOVES}
    for source in (None, *JobState):
        for event in Event:
            for target in JobState:
                assert may(source, event, target) is ((source, event, target) in listed)


def test_every_move_names_its_component() -> None:
    assert all(isinstance(move, Move) and move.by for move in MOVES)


def test_every_slice_can_be_done_and_none_leaves_the_table() -> None:
    reached = {SliceState.PENDING}
    for _ in SliceState:
        reached |= {target for source, target in SLICE_MOVES if source in reached}
    assert reached == set(SliceState)
    assert all((before, after) in SLICE_MOVES for before, after in pairwise(SliceState))


def table() -> list[str]:
    """Return the rows of the manual's table."""
    rows = ["| from | event | to | what makes the move, and what the guard names |", "| --- | --- | --- | --- |"]
    rows += [f"| {move.source or '(new)'} | `{move.event}` | {move.target} | {move.by} |" for move in MOVES]
    return rows


def diagram() -> list[str]:
    """Return the edges of the manual's drawing; several events between two states share one."""
    edges: dict[tuple[str, str], list[str]] = {}
    for move in MOVES:
        edges.setdefault((move.source or "[*]", move.target), []).append(move.event)
    drawn = [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in edges.items()]
    return drawn + [f"    {state} --> [*]" for state in FINAL]


def slice_diagram() -> list[str]:
    return [f"    {source} --> {target}" for source, target in SLICE_MOVES]


def test_the_manual_shows_this_table() -> None:
    assert "\n".join(table()) in MANUAL.read_text()
    steps = [f"| {state} | {', '.join(STEPS[state])} |" for state in JobState]
    assert "\n".join(["| state | steps |", "| --- | --- |", *steps]) in MANUAL.read_text()


@pytest.mark.parametrize(("which", "edges"), [(0, diagram()), (1, slice_diagram())])
def test_the_manual_draws_this_table(which: int, edges: list[str]) -> None:
    drawings = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)\n```", MANUAL.read_text(), re.DOTALL)
    assert [line for line in drawings[which].splitlines() if "-->" in line] == edges
