"""What a task of the worker does and hears at its edges: values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from worker.jobs.states import JobState
from worker.jobs.task_names import TASK_OF

Row = dict[str, Any]


class Message(NamedTuple):
    """What Celery carries; and the name of the task that it is for."""

    task: str
    job: str
    number: int | None
    token: int
    epoch: int

    @classmethod
    def of(cls, row: Row) -> Message:
        """Return the message of a row that was dispatched."""
        task = TASK_OF[JobState.UPLOADING if row["number"] is not None else JobState(row["state"])]
        return cls(str(task), str(row["job_id"]), row["number"], row["token"], row["epoch"])


class Program(NamedTuple):
    """A task that is running: its message, and the numbers of what it has heard."""

    message: Message
    heard: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """An edge: a statement that commits by itself."""

    name: str
    params: Row

    @property
    def words(self) -> str:
        return "statement " + " ".join(self.name.split()[:3])


@dataclass(frozen=True, slots=True)
class Request:
    """An edge: a request to the store."""

    op: str
    fields: Row
    content: bytes

    @property
    def words(self) -> str:
        return f"request {self.op}" + (f" at {self.fields['offset']}" if "offset" in self.fields else "")


@dataclass(frozen=True, slots=True)
class Ended:
    """The task is over; ``broken`` is an error that is a fault of our own code."""

    how: str
    broken: Exception | None = None

    @property
    def words(self) -> str:
        return self.how


Edge = Statement | Request | Ended


@dataclass(frozen=True, slots=True)
class Told:
    """Not an answer: the process was told that its claim is void (`lost`), or to stop (`stop`)."""

    what: str


@dataclass(frozen=True, slots=True)
class Found:
    """The rows that a statement returned."""

    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Answered:
    """The store's answer."""

    code: int
    data: Row | None


@dataclass(frozen=True, slots=True)
class Cut:
    """No answer came; whether there was an effect the task cannot know."""


Heard = Told | Found | Answered | Cut
#: Everything that can be heard but rows and answers.
SAID: tuple[Heard, ...] = (Cut(), Told("lost"), Told("stop"))
CUT, LOST, STOP = range(len(SAID))
