"""The journal: the latest requests and their outcome, in memory, to select and to wait for."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(slots=True)
class JournalEntry:
    """One request. A field that the request does not have is None."""

    number: int
    #: Seconds of this process's monotonic clock at the head of the request.
    began_s: float
    method: str
    bucket: str = ""
    path: str = ""
    op: str | None = None
    session: str | None = None
    offset: int | None = None
    #: Bytes received of the file part.
    size: int | None = None
    sha1: str | None = None
    body_bytes: int = 0
    #: Status and code of the response; None without one.
    status: int | None = None
    code: int | None = None
    #: The code of the operation itself, whatever the response says; None if the operation did not run.
    effect: int | None = None
    #: The faults that this request got.
    faults: tuple[str, ...] = ()
    #: "receiving", "held", "answered", or "cut" if the connection ended before the response was sent.
    state: str = "receiving"
    ended_s: float | None = None


class Journal:
    """A bounded list of entries.

    Args:
        length: The number of entries kept.
    """

    def __init__(self, length: int) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=length)
        self._changed = threading.Condition()
        self._next = 1
        self._stopping = False

    def begin(self, method: str) -> JournalEntry:
        """Adds an entry."""
        with self._changed:
            entry = JournalEntry(self._next, time.monotonic(), method)
            self._next += 1
            self._entries.append(entry)
        return entry

    def update(self, entry: JournalEntry, **changes: Any) -> None:
        """Changes an entry and wakes the threads in `select`."""
        with self._changed:
            for name, value in changes.items():
                setattr(entry, name, value)
            self._changed.notify_all()

    def end(self, entry: JournalEntry, state: str) -> None:
        """Closes an entry."""
        self.update(entry, state=state, ended_s=time.monotonic())

    def clear(self) -> None:
        """Removes all entries; the numbers continue."""
        with self._changed:
            self._entries.clear()

    def stop(self) -> None:
        """Ends all waits, now and later."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def select(self, conditions: dict[str, str], *, count: int = 0, timeout_s: float = 0.0) -> list[dict[str, Any]]:
        """Waits until `count` entries match or the time is up; returns those that match, oldest first.

        Args:
            conditions: Field -> text that it must equal; `path` is a glob, `after` a number that must be lower.
            count: The number of entries to wait for.
            timeout_s: Seconds to wait.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._matching(conditions)) >= count, timeout_s)
            return [asdict(each) for each in self._matching(conditions)]

    def _matching(self, conditions: dict[str, str]) -> list[JournalEntry]:
        return [
            entry
            for entry in self._entries
            if all(_field_matches(entry, name, text) for name, text in conditions.items())
        ]


def _field_matches(entry: JournalEntry, name: str, text: str) -> bool:
    if name == "after":
        return entry.number > int(text)
    if name == "path":
        return fnmatchcase(entry.path, text)
    value = getattr(entry, name)
    return (value is not None and str(value) == text) if text else value is None
