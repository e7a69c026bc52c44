"""What is at the store when all is over, as its folder has it: an account that owes nothing to the store's answers."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_OBJECT = "SELECT content FROM objects WHERE bucket LIKE ? AND path = ?"
_UPLOADS = "SELECT path, session FROM uploads WHERE bucket LIKE ?"


class Stored(Protocol):
    """What the checker asks of a store."""

    def sha1s(self, keys: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Each key with the digest of the bytes of the object there, in lower-case hex; None if there is none."""

    def open_sessions(self) -> Iterator[tuple[str, str]]:
        """The key and session of every unfinished upload."""


class Folder:
    """The folder of an emulator, which may run or not; look when nobody changes it.

    Args:
        folder: its `--data-dir`.
        bucket: the one bucket that is looked at.
    """

    def __init__(self, folder: Path, bucket: str) -> None:
        self._content = folder / "content"
        self._file = f"{(folder / 'records.sqlite3').as_uri()}?mode=ro"
        self._place = f"%/{bucket}"

    def sha1s(self, keys: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Each key with the digest of the bytes of the object there."""
        with self._records() as records:
            for key in keys:
                found = records.execute(_OBJECT, (self._place, key)).fetchone()
                yield key, None if found is None else self._sha1(found[0])

    def _sha1(self, content: str) -> str:
        with (self._content / content).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()

    def open_sessions(self) -> Iterator[tuple[str, str]]:
        """The key and session of every unfinished upload."""
        with self._records() as records:
            yield from records.execute(_UPLOADS, (self._place,))

    def _records(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._file, uri=True))
