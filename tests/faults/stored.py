"""What is at the store when all is over, as its folder has it: an account that owes nothing to the store's answers."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Stored(Protocol):
    """What the checker asks of a store."""

    def sha1(self, key: str) -> str | None:
        """The digest of the bytes of the object at a key, in lower-case hex; None if there is none."""

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
        self._records = f"{(folder / 'records.sqlite3').as_uri()}?mode=ro"
        self._place = f"%/{bucket}"

    def sha1(self, key: str) -> str | None:
        """The digest of the bytes of the object at a key."""
        rows = self._rows("SELECT content FROM objects WHERE bucket LIKE ? AND path = ?", self._place, key)
        if not rows:
            return None
        with (self._content / rows[0][0]).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()

    def open_sessions(self) -> Iterator[tuple[str, str]]:
        """The key and session of every unfinished upload."""
        yield from self._rows("SELECT path, session FROM uploads WHERE bucket LIKE ?", self._place)

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._records, uri=True)) as records:
            return records.execute(query, values).fetchall()
