"""Values for what a task does at an edge (a statement, a request, its end) and for the inputs that it gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from worker.jobs.states import JobState
from worker.jobs.task_names import TASK_OF

if TYPE_CHECKING:
    from worker.jobs.rows import Dispatched

Row = dict[str, Any]


class Message(NamedTuple):
    """The fields of a Celery message, and the name of its task."""

    task: str
    job: str
    number: int | None
    token: int
    epoch: int

    @classmethod
    def of(cls, item: Dispatched) -> Message:
        """Return the message of a dispatched step or slice."""
        task = TASK_OF[JobState.UPLOADING if item.number is not None else item.state]
        return cls(str(task), str(item.job_id), item.number, item.token, item.epoch)


class TaskRun(NamedTuple):
    """A running task: its message, and the numbers of the inputs that it has received."""

    message: Message
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """An edge: a statement that commits by itself."""

    name: str
    params: Row

    @property
    def description(self) -> str:
        return "statement " + " ".join(self.name.split()[:3])


@dataclass(frozen=True, slots=True)
class Request:
    """An edge: a request to the store."""

    op: str
    fields: Row
    content: bytes

    @property
    def description(self) -> str:
        return f"request {self.op}" + (f" at {self.fields['offset']}" if "offset" in self.fields else "")


@dataclass(frozen=True, slots=True)
class Ended:
    """The task has ended; ``bug`` is an exception that no task may raise."""

    description: str
    bug: Exception | None = None


Edge = Statement | Request | Ended


@dataclass(frozen=True, slots=True)
class Signal:
    """The process learns that its claim is lost (`lost`), or that it has to stop (`stop`)."""

    what: str


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows that a statement returned."""

    rows: list[Row]


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The store's answer."""

    code: int
    data: Row | None


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """No answer came; the task cannot know whether there was an effect."""


Input = Signal | QueryResult | StoreAnswer | ConnectionLost
#: All inputs but rows and answers.
FIXED_INPUTS: tuple[Input, ...] = (ConnectionLost(), Signal("lost"), Signal("stop"))
CONNECTION_LOST, CLAIM_LOST, STOP_REQUESTED = range(len(FIXED_INPUTS))
