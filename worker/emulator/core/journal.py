"""What was asked and what came of it: the latest requests, in memory, to count and to wait for."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(slots=True)
class JournalEntry:
    """One request. Fields that the request did not have are None."""

    number: int
    #: Seconds of this process's monotonic clock, at the request's head.
    began_s: float
    method: str
    bucket: str = ""
    path: str = ""
    op: str | None = None
    session: str | None = None
    offset: int | None = None
    #: Length of the file part, as far as received.
    size: int | None = None
    sha1: str | None = None
    body_bytes: int = 0
    #: What the client was told: None when it was told nothing.
    status: int | None = None
    code: int | None = None
    #: What really happened: the code of the operation, None if it was not carried out.
    effect: int | None = None
    #: Kinds of the faults that this request met.
    faults: tuple[str, ...] = ()
    #: "receiving", "held", "answered", or "cut" when the connection ended before the answer was out.
    state: str = "receiving"
    ended_s: float | None = None


class Journal:
    """A bounded list of entries that one can wait on.

    Args:
        length: How many are remembered.
    """

    def __init__(self, length: int) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=length)
        self._changed = threading.Condition()
        self._next = 1
        self._stopping = False

    def begin(self, method: str) -> JournalEntry:
        """A new entry, visible at once."""
        with self._changed:
            entry = JournalEntry(self._next, time.monotonic(), method)
            self._next += 1
            self._entries.append(entry)
        return entry

    def update(self, entry: JournalEntry, **changes: Any) -> None:
        """Changes an entry and wakes who waits."""
        with self._changed:
            for name, value in changes.items():
                setattr(entry, name, value)
            self._changed.notify_all()

    def end(self, entry: JournalEntry, state: str) -> None:
        """Closes an entry."""
        self.update(entry, state=state, ended_s=time.monotonic())

    def clear(self) -> None:
        """Forgets everything; numbers go on."""
        with self._changed:
            self._entries.clear()

    def stop(self) -> None:
        """Lets everybody go who waits, now and later."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def select(self, wanted: dict[str, str], *, count: int = 0, timeout_s: float = 0.0) -> list[dict[str, Any]]:
        """Entries that match, oldest first, as plain values; waits until there are `count` of them or time is up.

        Args:
            wanted: Field -> text that it must equal; `path` is a glob, `after` a number to begin behind.
            count: How many to wait for.
            timeout_s: How long.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self._matching(wanted)) >= count, timeout_s)
            return [asdict(each) for each in self._matching(wanted)]

    def _matching(self, wanted: dict[str, str]) -> list[JournalEntry]:
        return [entry for entry in self._entries if all(_is(entry, name, text) for name, text in wanted.items())]


def _is(entry: JournalEntry, name: str, text: str) -> bool:
    if name == "after":
        return entry.number > int(text)
    if name == "path":
        return fnmatchcase(entry.path, text)
    value = getattr(entry, name)
    return (value is not None and str(value) == text) if text else value is None
