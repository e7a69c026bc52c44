"""Values for a small world: what it contains, how much may happen in it, and each state that it can reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from tests.faults.explorer.edges import Edge, Message, TaskRun
    from tests.faults.explorer.rows import RowsRef
    from tests.faults.explorer.store_model import Store

JOB = UUID(int=1)
SLICE_BYTES = 4


class Fault(StrEnum):
    """What the explorer injects, at any point."""

    CRASH = "crash"
    """A worker crashes."""
    PAUSE = "pause"
    """A worker is declared dead although it lives: it still sends its next request, then it learns of it."""
    LAPSE = "lapse"
    """A claim's lease ends while its holder works: the holder still sends its next request."""
    LATE_DELETE = "late delete"
    """PAUSE or LAPSE where the next request is a delete. No store of this protocol can fence it off."""
    CUT_OFF = "cut off"
    """A worker without a valid claim continues without limit: it has lost the database and not the store."""
    STOP = "stop"
    """A worker has to stop."""
    NO_ANSWER = "no answer"
    """The store executes a request, and the answer is lost."""
    NOT_SENT = "not sent"
    """A request is lost."""
    NO_COMMIT_HEARD = "no commit heard"
    """The database commits, and the answer is lost."""
    EXPIRED = "expired"
    """The store drops the unfinished upload."""


#: The faults under which every invariant must hold.
TOLERATED = frozenset(Fault) - {Fault.LATE_DELETE, Fault.CUT_OFF}


class ForeignAction(StrEnum):
    """What another client does at the key; it uploads other content, unless its line says otherwise."""

    PUT = "put"
    """It uploads an object."""
    BEGIN = "begin"
    """It begins an upload without a digest and sends all slices."""
    BEGIN_HALF = "begin half"
    """It begins an upload without a digest and sends the first slice."""
    BEGIN_NAMED = "begin named"
    """It begins an upload with the digest of its content and sends the first slice."""
    BEGIN_SAME = "begin same"
    """It begins an upload of the job's own file, with the digest, and sends the first slice."""
    FINISH = "finish"
    """It finishes its upload."""


@dataclass(frozen=True, slots=True)
class World:
    """What there is, and how much may happen.

    Attributes:
        slices: of the job; 0 for a file that is uploaded in one request.
        overwrite: whether the job may replace an object.
        marked: whether its object carries our mark; false for a job with attributes of its own.
        existed: whether an object of another client is there from the start.
        verified: the job says `verify: file`.
        named: the store's lists contain the digest that an upload was begun with.
        predecessor: what another client had done at the key before, if anything.
        faults: how many, of any kind, at any point.
        kinds: of faults.
        cancels: how often the client may cancel.
        retries: how often it may retry.
        foreign_actions: how often another client may act.
        foreign_kinds: what it may do.
    """

    slices: int = 2
    overwrite: bool = False
    marked: bool = True
    existed: bool = False
    verified: bool = False
    named: bool = True
    predecessor: ForeignAction | None = None
    faults: int = 0
    kinds: frozenset[Fault] = TOLERATED
    cancels: int = 0
    retries: int = 0
    foreign_actions: int = 0
    foreign_kinds: frozenset[ForeignAction] = frozenset(ForeignAction)

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return b"".join(bytes([ord("a") + n]) * SLICE_BYTES for n in range(max(1, self.slices)))

    @property
    def foreign_content(self) -> bytes:
        """The other client's bytes, as many."""
        return b"z" * len(self.content)


class WorkerThread(NamedTuple):
    """A thread: its process, and the task that it runs."""

    process: int
    run: TaskRun | None = None


class Budget(NamedTuple):
    """How much may still happen."""

    faults: int
    cancels: int
    retries: int
    foreign_actions: int


class State(NamedTuple):
    """The whole world at one point."""

    rows: RowsRef
    store: Store
    published: frozenset[Message]
    threads: tuple[WorkerThread, ...]
    budget: Budget
    processes: int


class Transition(NamedTuple):
    """A step to another state; ``edge`` and ``thread`` are those of the task that made it, if a task did."""

    description: str
    state: State
    edge: Edge | None = None
    thread: WorkerThread | None = None
    fault: bool = False


def worker(process: int) -> UUID:
    """Return the identity of a process."""
    return UUID(int=100 + process)
