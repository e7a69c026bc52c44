"""A model of the statements in plain Python, short enough to check by reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.jobs.states import FINAL, JobState, SliceState, Step

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

Q, I, U, F = JobState.QUEUED, JobState.INITIALIZING, JobState.UPLOADING, JobState.FINISHING  # noqa: E741
C, OK, BAD, X = JobState.CANCELLING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
PENDING, DISPATCHED, SENDING, DONE = SliceState
BEFORE_THE_END = {Q, I, U, F}


@dataclass(frozen=True)
class Ticket:
    """A message, and the claim that a worker makes with it."""

    job: UUID
    number: int | None
    token: int
    epoch: int
    state: JobState
    worker: UUID | None = None


@dataclass
class ModelSlice:
    """A slice."""

    token: int
    state: SliceState = PENDING
    worker: UUID | None = None
    claimed: bool = False

    def free(self) -> None:
        """Release the slice."""
        self.state, self.worker = PENDING, None


@dataclass
class ModelJob:
    """A job; each method models a statement, and returns whether the statement is granted."""

    id: UUID
    target: str
    state: JobState = Q
    step: Step = Step.PENDING
    epoch: int = 1
    token: int = 0
    worker: UUID | None = None
    paused: bool = False
    started: bool = False
    session: bool = False
    slices: list[ModelSlice] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether the job holds its target."""
        return self.state not in FINAL

    def left(self) -> int:
        """Return how many slices are not done."""
        return sum(one.state is not DONE for one in self.slices)

    def holds_step(self, ticket: Ticket) -> bool:
        """Return whether the ticket is the claim on the step."""
        return (self.step, self.token, self.epoch, self.worker) == (
            Step.RUNNING, ticket.token, ticket.epoch, ticket.worker,
        )  # fmt: skip

    def held_slice(self, ticket: Ticket, *states: SliceState) -> ModelSlice | None:
        """Return the slice that the ticket is a claim on."""
        if ticket.epoch != self.epoch or ticket.number is None or ticket.number >= len(self.slices):
            return None
        one = self.slices[ticket.number]
        return one if (one.token, one.worker) == (ticket.token, ticket.worker) and one.state in states else None

    def rest(self, step: Step) -> None:
        """Release the step."""
        self.step, self.worker = step, None

    def take_back(self) -> None:
        """Return dispatched slices to pending."""
        for one in self.slices:
            if one.state is DISPATCHED:
                one.free()

    def dispatch(self) -> list[Ticket]:
        """Dispatch everything that is due."""
        tickets = []
        if self.step is Step.PENDING and not (self.paused and self.state is Q):
            self.rest(Step.DISPATCHED)
            self.token += 1
            tickets.append(Ticket(self.id, None, self.token, self.epoch, self.state))
        if self.state is U and not self.paused:
            for number, one in enumerate(self.slices):
                if one.state is PENDING:
                    one.state, one.token = DISPATCHED, one.token + 1
                    tickets.append(Ticket(self.id, number, one.token, self.epoch, self.state))
        return tickets

    def claim(self, ticket: Ticket, worker: UUID) -> bool:
        """Claim the step or slice that a message names."""
        if ticket.epoch != self.epoch:
            return False
        if ticket.number is None:
            due = (self.step, self.token, self.state) == (Step.DISPATCHED, ticket.token, ticket.state)
            if not due or (self.paused and self.state is Q):
                return False
            self.state = I if self.state is Q else self.state
            self.step, self.worker, self.started = Step.RUNNING, worker, True
            return True
        if self.state is not U or self.paused or ticket.number >= len(self.slices):
            return False
        one = self.slices[ticket.number]
        if one.state is not DISPATCHED or one.token != ticket.token:
            return False
        one.state, one.worker, one.claimed = SENDING, worker, True
        return True

    def checkpoint(self, ticket: Ticket) -> bool:
        """Record one slice; a batch records each of its slices so."""
        one = self.held_slice(ticket, SENDING, DONE)
        if one is not None and one.state is SENDING:
            one.state = DONE
            if self.state is U and not self.left():
                self.state, self.step = F, Step.PENDING
        return one is not None

    def release(self, ticket: Ticket) -> bool:
        """Release a step or a slice."""
        if ticket.number is not None:
            one = self.held_slice(ticket, SENDING)
            if one is not None:
                one.free()
            return one is not None
        granted = self.holds_step(ticket)
        if granted:
            self.lose_step()
        return granted

    def lose_step(self) -> None:
        """Return to the state before the step."""
        self.state = Q if self.state is I else self.state
        self.rest(Step.IDLE if self.state is C else Step.PENDING)

    def open(self, ticket: Ticket, total: int, held: Collection[int]) -> bool:
        """Store a session with its plan."""
        if not self.holds_step(ticket) or self.state not in {I, C}:
            return False
        self.session = True
        if self.state is C:
            self.rest(Step.IDLE)
            return True
        token = (self.epoch - 1) << 32
        self.slices = [ModelSlice(token, DONE if n in held else PENDING, None, n in held) for n in range(total)]
        self.upload_or_finish()
        return True

    def upload_or_finish(self) -> None:
        """Go to uploading if slices are left, else to finishing."""
        self.state = U if self.left() else F
        self.rest(Step.IDLE if self.left() else Step.PENDING)

    def reconcile(self, ticket: Ticket, listed: Collection[int]) -> bool:
        """Set the slices by the store's list."""
        if not self.holds_step(ticket) or self.state not in {I, F, C}:
            return False
        if self.state is C:
            self.rest(Step.IDLE)
            return True
        for number, one in enumerate(self.slices):
            becomes = DONE if number in listed and (one.state is DONE or one.claimed) else PENDING
            if one.state not in {SENDING, becomes}:
                one.state, one.worker = becomes, None
        self.upload_or_finish()
        return True

    def succeed(self, ticket: Ticket) -> bool:
        """Succeed."""
        granted = self.holds_step(ticket) and self.state in {I, F, C}
        if granted:
            self.end(OK)
        return granted

    def cancelled(self, ticket: Ticket) -> bool:
        """End as cancelled."""
        granted = self.holds_step(ticket) and self.state is C
        if granted:
            self.end(X)
        return granted

    def end(self, state: JobState) -> None:
        """End in this state, without session and slices."""
        self.state, self.session, self.slices = state, False, []
        self.rest(Step.IDLE)

    def fail(self, ticket: Ticket) -> bool:
        """Fail."""
        one = self.held_slice(ticket, SENDING)
        if one is None and not (ticket.number is None and self.holds_step(ticket)):
            return False
        if one is not None:
            one.free()
        if not self.live:
            return True
        self.take_back()
        if self.state is not C:
            self.state = BAD
            self.rest(Step.IDLE)
        elif one is None:
            self.rest(Step.IDLE)
        return True

    def new_epoch(self, ticket: Ticket) -> bool:
        """Begin a new epoch by a claim."""
        one = self.held_slice(ticket, SENDING) if self.state in {U, C} else None
        if one is None and not (ticket.number is None and self.holds_step(ticket)):
            return False
        if self.state is C:
            if one is None:
                self.rest(Step.IDLE)
            else:
                one.free()
            return True
        self.begin_anew()
        return True

    def begin_anew(self) -> None:
        """Begin a new epoch, without session and slices."""
        self.state, self.epoch, self.session, self.slices = Q, self.epoch + 1, False, []
        self.rest(Step.PENDING)

    def cancel(self) -> bool:
        """Cancel; a repeated cancel is granted, too."""
        if self.state in BEFORE_THE_END:
            self.state = C if self.started else X
            self.step = Step.RUNNING if self.step is Step.RUNNING else Step.IDLE
            self.paused = False
            self.take_back()
            return True
        return self.state in {C, X}

    def pause(self) -> None:
        """Pause the job."""
        if self.state in BEFORE_THE_END and not self.paused:
            self.paused = True
            self.step = Step.PENDING if self.step is Step.DISPATCHED else self.step
            self.take_back()
        elif self.state is C and self.step is Step.DISPATCHED:
            self.step = Step.PENDING  # the dispatcher sends its abort once more, under another task id

    def retry(self) -> None:
        """Retry the job."""
        if self.state is X or not self.session:
            self.begin_anew()
        self.state, self.paused = Q, False
        self.rest(Step.PENDING)

    def promote(self) -> None:
        """Make the abort due when every claim has ended."""
        if self.state is C and self.step is Step.IDLE and all(one.state is not SENDING for one in self.slices):
            self.step = Step.PENDING

    def rescue(self, worker: UUID) -> None:
        """Release the claims of a worker that ended."""
        for one in self.slices:
            if one.state is SENDING and one.worker == worker:
                one.free()
        if self.step is Step.RUNNING and self.worker == worker:
            self.lose_step()
