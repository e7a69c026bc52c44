"""The states of jobs and slices, and every move between them, as a table.

Only `transitions.py` and `control.py` write a state, and none that this table does not have. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobState(StrEnum):
    """Where a job stands. Each non-final state says who moves it on."""

    QUEUED = "queued"
    """Waits for the dispatcher to dispatch its init; with `not_before`, until then."""
    INITIALIZING = "initializing"
    """A worker opens the source and the session; freed by the dispatcher when that worker dies or its lease ends."""
    UPLOADING = "uploading"
    """Its slices are dispatched one by one; the last checkpoint moves it on."""
    FINISHING = "finishing"
    """Every slice is at the store; the finish step completes the object and looks for proof."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    """Waits for claims to end, then for the abort step; 24 hours at most."""
    CANCELLED = "cancelled"


class SliceState(StrEnum):
    """Where a slice stands."""

    PENDING = "pending"
    DISPATCHED = "dispatched"
    """A message for it was published (or is about to be, again, by the dispatcher)."""
    SENDING = "sending"
    """Claimed; freed when the worker dies or at `lease_until`."""
    DONE = "done"


class Step(StrEnum):
    """Where the job's own next task (init, finish, abort) stands."""

    IDLE = "idle"
    """There is none to do now."""
    PENDING = "pending"
    DISPATCHED = "dispatched"
    RUNNING = "running"


LIVE = (JobState.QUEUED, JobState.INITIALIZING, JobState.UPLOADING, JobState.FINISHING, JobState.CANCELLING)
"""The states in which a job may still touch its target: the target is reserved."""
FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
ACTIVE = (JobState.QUEUED, JobState.INITIALIZING, JobState.UPLOADING, JobState.FINISHING)
"""The states in which a job can be cancelled, paused and resumed."""
OF_INIT = (JobState.INITIALIZING, JobState.CANCELLING)
"""The states of a job whose init is running: a cancel does not end it at once."""
STEPS: Mapping[JobState, tuple[Step, ...]] = MappingProxyType(
    {
        JobState.UPLOADING: (Step.IDLE,),
        JobState.QUEUED: (Step.PENDING, Step.DISPATCHED),
        JobState.INITIALIZING: (Step.RUNNING,),
        JobState.FINISHING: (Step.PENDING, Step.DISPATCHED, Step.RUNNING),
        JobState.CANCELLING: (Step.IDLE, Step.PENDING, Step.DISPATCHED, Step.RUNNING),
        **dict.fromkeys(FINAL, (Step.IDLE,)),
    }
)
"""The steps that a job can have in each state; a CHECK of the table holds it. The state of most writes is the first."""
WITH_A_STEP = tuple(state for state, steps in STEPS.items() if Step.RUNNING in steps)
"""The states in which a worker may hold the job's own step."""
SLICES_IN_FLIGHT = (SliceState.DISPATCHED, SliceState.SENDING)

DUE_STEP = "step = 'pending' AND not_before IS NULL AND (paused_at IS NULL OR state <> 'queued')"
"""Which job steps the dispatcher may dispatch now, as SQL: the statements and the index that they use share it."""
SLICES_MAY_START = "state = 'uploading' AND paused_at IS NULL"
"""Of which jobs a slice may be dispatched and claimed, as SQL; alike."""


class Event(StrEnum):
    """The kinds of a job's history; those of the table move the job, the others only record."""

    ENQUEUED = "enqueued"
    INIT_CLAIMED = "init_claimed"
    SESSION_OPENED = "session_opened"
    ALL_SLICES_HELD = "all_slices_held"
    STORED_AT_ONCE = "stored_at_once"
    INIT_DEFERRED = "init_deferred"
    SLICES_DONE = "slices_done"
    SESSION_LOST = "session_lost"
    PROVEN = "proven"
    SLICES_MISSING = "slices_missing"
    FINISH_DEFERRED = "finish_deferred"
    FAILED = "failed"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    CANCEL_TOO_LATE = "cancel_too_late"
    RETRIED = "retried"
    WORKER_LOST = "worker_lost"
    ABORT_DEFERRED = "abort_deferred"
    # written to the history without a move
    SLICE_DEFERRED = "slice_deferred"
    RECOVERED = "recovered"
    FOREIGN_SESSION_DISCARDED = "foreign_session_discarded"
    SESSION_LEFT_OPEN = "session_left_open"
    PAUSED = "paused"
    RESUMED = "resumed"
    PRIORITY_CHANGED = "priority_changed"
    START_REQUESTED = "start_requested"
    ABANDON_REQUESTED = "abandon_requested"


@dataclass(frozen=True, slots=True)
class Move:
    """One allowed move of a job.

    Attributes:
        source: the state it leaves; None for a new job.
        event: what is written to the history.
        target: the state it enters.
        by: the component that makes the move, and what the guard names beside the source state.
    """

    source: JobState | None
    event: Event
    target: JobState
    by: str


_Q, _I, _U, _F = JobState.QUEUED, JobState.INITIALIZING, JobState.UPLOADING, JobState.FINISHING
_C, _OK, _BAD, _X = JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
_STEP = "the task that holds the step: epoch, token, worker"
_SLICE = "the task that holds a slice: epoch, slice token, worker"
_API = "an operator or the owner, through the API"
_RESCUE = "the dispatcher, when the worker is dead or the lease has ended"

MOVES: tuple[Move, ...] = (
    Move(None, Event.ENQUEUED, _Q, _API),
    Move(_Q, Event.INIT_CLAIMED, _I, "the init task: epoch, token"),
    Move(_I, Event.SESSION_OPENED, _U, _STEP),
    Move(_I, Event.ALL_SLICES_HELD, _F, _STEP),
    Move(_I, Event.STORED_AT_ONCE, _OK, _STEP),
    Move(_I, Event.INIT_DEFERRED, _Q, _STEP),
    Move(_I, Event.SESSION_LOST, _Q, _STEP),
    Move(_I, Event.WORKER_LOST, _Q, _RESCUE),
    Move(_U, Event.SLICES_DONE, _F, "the checkpoint that leaves no slice: epoch, slice token, worker"),
    Move(_U, Event.SESSION_LOST, _Q, _SLICE),
    Move(_F, Event.PROVEN, _OK, _STEP),
    Move(_F, Event.SLICES_MISSING, _U, _STEP),
    Move(_F, Event.FINISH_DEFERRED, _F, _STEP),
    Move(_F, Event.SESSION_LOST, _Q, _STEP),
    Move(_F, Event.WORKER_LOST, _F, _RESCUE),
    *(
        Move(state, Event.FAILED, _BAD, "the task that holds the step or a slice; or the dispatcher (quarantine)")
        for state in (_Q, _I, _U, _F)
    ),
    *(Move(state, Event.CANCEL_REQUESTED, _C, _API) for state in (_Q, _I, _U, _F)),
    Move(_C, Event.WORKER_LOST, _C, _RESCUE),
    Move(_C, Event.ABORT_DEFERRED, _C, _STEP),
    Move(
        _C,
        Event.CANCELLED,
        _X,
        "the abort task: epoch, token, worker; at once where nothing was begun; the leader, of an abandoned job",
    ),
    Move(_C, Event.CANCEL_TOO_LATE, _OK, "the finish or abort task that finds our object published"),
    Move(_BAD, Event.RETRIED, _Q, _API),
    Move(_X, Event.RETRIED, _Q, _API),
)

SLICE_MOVES: tuple[tuple[SliceState, SliceState], ...] = (
    (SliceState.PENDING, SliceState.DISPATCHED),
    (SliceState.DISPATCHED, SliceState.SENDING),
    (SliceState.SENDING, SliceState.DONE),
    (SliceState.DISPATCHED, SliceState.PENDING),
    (SliceState.SENDING, SliceState.PENDING),
    (SliceState.DONE, SliceState.PENDING),  # the store's own list lacks it
    (SliceState.PENDING, SliceState.DONE),  # the store's own list has it, and it had been claimed in this session
    (SliceState.DISPATCHED, SliceState.DONE),
)


def may(source: JobState | None, event: Event, target: JobState) -> bool:
    """Say whether the table has this move."""
    return any((move.source, move.event, move.target) == (source, event, target) for move in MOVES)
