"""The store's contents after a run, read from its folder and not from the store's answers."""

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


class StoreContents(Protocol):
    """What the checker needs to know of a store."""

    def sha1s(self, keys: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Each key with the digest of its object's bytes, in lower-case hex; None without an object."""

    def open_sessions(self) -> Iterator[tuple[str, str]]:
        """The key and session of every unfinished upload."""


class EmulatorFolder:
    """The folder of an emulator that receives no requests.

    Args:
        folder: its `--data-dir`.
        bucket: the bucket to read.
    """

    def __init__(self, folder: Path, bucket: str) -> None:
        self._content = folder / "content"
        self._file = f"{(folder / 'records.sqlite3').as_uri()}?mode=ro"
        self._bucket = f"%/{bucket}"

    def sha1s(self, keys: Iterable[str]) -> Iterator[tuple[str, str | None]]:
        """Each key with the digest of its object's bytes."""
        with self._records() as records:
            for key in keys:
                found = records.execute(_OBJECT, (self._bucket, key)).fetchone()
                yield key, None if found is None else self._sha1(found[0])

    def _sha1(self, content: str) -> str:
        with (self._content / content).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()

    def open_sessions(self) -> Iterator[tuple[str, str]]:
        """The key and session of every unfinished upload."""
        with self._records() as records:
            yield from records.execute(_UPLOADS, (self._bucket,))

    def _records(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._file, uri=True))
