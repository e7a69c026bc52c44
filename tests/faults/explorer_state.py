"""What there is in a small world and how much may happen in it, and where it stands: values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from tests.faults.explorer_edges import Edge, Message, Program
    from tests.faults.explorer_rows import At
    from tests.faults.explorer_store import Store

JOB = UUID(int=1)
SLICE_BYTES = 4


class Fault(StrEnum):
    """What can go wrong, each at any point."""

    CRASH = "crash"
    """A worker dies."""
    PAUSE = "pause"
    """A worker is taken for dead, and lives: what it was about to send still goes out, then it hears."""
    LAPSE = "lapse"
    """A claim's lease ends under its holder: what that was about to send still goes out."""
    LATE_DELETE = "late delete"
    """The same two, where it is a delete that goes out so late. No store of this protocol has a fence against it."""
    CUT_OFF = "cut off"
    """A worker whose claim is void goes on for as long as it likes: it has lost the database and not the store."""
    STOP = "stop"
    """A worker is told to stop."""
    NO_ANSWER = "no answer"
    """The store did it, and nobody heard."""
    NOT_SENT = "not sent"
    """The request was lost on the way."""
    NO_COMMIT_HEARD = "no commit heard"
    """The database did it, and nobody heard."""
    EXPIRED = "expired"
    """The store forgets the unfinished upload."""


#: Those that the laws are to hold under.
BORNE = frozenset(Fault) - {Fault.LATE_DELETE, Fault.CUT_OFF}


class Stranger(StrEnum):
    """What another client does at the key; what it uploads is other content, but where it says otherwise."""

    PUT = "put"
    """An object."""
    BEGIN = "begin"
    """An upload without a digest, all slices sent."""
    BEGIN_HALF = "begin half"
    """The same, the first slice sent."""
    BEGIN_NAMED = "begin named"
    """An upload with the digest of its content, the first slice sent."""
    BEGIN_SAME = "begin same"
    """An upload of the file itself, with its digest, the first slice sent."""
    FINISH = "finish"
    """The finish of its upload."""


@dataclass(frozen=True, slots=True)
class World:
    """What there is, and how much may happen.

    Attributes:
        slices: of the job; 0 for a file that goes up in one request.
        overwrite: whether the job may replace an object.
        marked: whether its object carries our mark; not so where it brings attributes of its own.
        existed: whether a stranger's object is there from the first.
        verified: the job says `verify: file`.
        named: the store's lists name the digest that an upload was begun with.
        predecessor: what another client had done at the key before, if anything.
        faults: how many of any kind, at any point.
        kinds: of them.
        cancels: how often the client may cancel.
        retries: how often it may retry.
        strangers: how often a stranger may act.
        deeds: what it may do.
    """

    slices: int = 2
    overwrite: bool = False
    marked: bool = True
    existed: bool = False
    verified: bool = False
    named: bool = True
    predecessor: Stranger | None = None
    faults: int = 0
    kinds: frozenset[Fault] = BORNE
    cancels: int = 0
    retries: int = 0
    strangers: int = 0
    deeds: frozenset[Stranger] = frozenset(Stranger)

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return b"".join(bytes([ord("a") + n]) * SLICE_BYTES for n in range(max(1, self.slices)))

    def foreign(self) -> bytes:
        """The stranger's, as many."""
        return b"z" * len(self.content)


class Slot(NamedTuple):
    """A thread: of which process, and what it runs."""

    process: int
    program: Program | None = None


class Left(NamedTuple):
    """How much may still happen."""

    faults: int
    cancels: int
    retries: int
    strangers: int


class State(NamedTuple):
    """Everything."""

    rows: At
    store: Store
    posted: frozenset[Message]
    slots: tuple[Slot, ...]
    left: Left
    processes: int


class Next(NamedTuple):
    """What happened, who did it with which edge, and what was refused; and where that leads."""

    words: str
    state: State
    edge: Edge | None = None
    slot: Slot | None = None
    refused: str = ""
    fault: bool = False


def worker(process: int) -> UUID:
    """Return the identity of a process."""
    return UUID(int=100 + process)
