"""The records of objects, unfinished uploads and folders: one SQLite file, synced at every commit."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
    session TEXT PRIMARY KEY, bucket TEXT NOT NULL, path TEXT NOT NULL, content TEXT NOT NULL,
    filesize INTEGER NOT NULL, slice_size INTEGER NOT NULL, serial INTEGER NOT NULL, sha TEXT NOT NULL,
    insert_only INTEGER NOT NULL, biz_attr TEXT NOT NULL, created_s REAL NOT NULL,
    UNIQUE (bucket, path));
CREATE INDEX IF NOT EXISTS uploads_by_age ON uploads (created_s);
CREATE TABLE IF NOT EXISTS slices (
    session TEXT NOT NULL REFERENCES uploads ON DELETE CASCADE, offset INTEGER NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (session, offset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploadparts (
    session TEXT PRIMARY KEY REFERENCES uploads ON DELETE CASCADE, parts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, path TEXT NOT NULL, content TEXT NOT NULL, filesize INTEGER NOT NULL,
    slice_size INTEGER NOT NULL, sha TEXT NOT NULL, biz_attr TEXT NOT NULL, session TEXT NOT NULL,
    created_s REAL NOT NULL, modified_s REAL NOT NULL, PRIMARY KEY (bucket, path));
CREATE INDEX IF NOT EXISTS objects_by_sha ON objects (sha) WHERE sha <> '';
CREATE TABLE IF NOT EXISTS folders (
    bucket TEXT NOT NULL, path TEXT NOT NULL, biz_attr TEXT NOT NULL, created_s REAL NOT NULL,
    PRIMARY KEY (bucket, path));
CREATE TABLE IF NOT EXISTS used_signatures (mac BLOB PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished upload. `bucket` is `<appid>/<bucket>`; `sha` is empty if none was sent."""

    session: str
    bucket: str
    path: str
    content: str
    filesize: int
    slice_size: int
    serial: int
    sha: str
    insert_only: int
    biz_attr: str
    created_s: float


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A complete object. `session` is empty unless it was uploaded in slices; `sha` is empty unless it is verified."""

    bucket: str
    path: str
    content: str
    filesize: int
    slice_size: int
    sha: str
    biz_attr: str
    session: str
    created_s: float
    modified_s: float


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder; its path ends with a slash."""

    bucket: str
    path: str
    biz_attr: str
    created_s: float


_Row = TypeVar("_Row", Upload, StoredObject, Folder)
_TABLES: dict[type, str] = {Upload: "uploads", StoredObject: "objects", Folder: "folders"}
#: A suffix that sorts after every path with the same prefix.
_AFTER_ANY_PATH = "\U0010ffff"


class Records:
    """The records, shared by all threads. Several statements that belong together run in one `transaction`."""

    def __init__(self, file: Path, *, fsync: bool) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'OFF'}")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """An exclusive transaction, durable when the block ends; an exception rolls it back."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _select(self, kind: type[_Row], where: str, *values: object) -> list[_Row]:
        columns = ", ".join(each.name for each in fields(kind))
        sql = f"SELECT {columns} FROM {_TABLES[kind]} WHERE {where}"  # noqa: S608 - our own names, no values
        return [kind(*row) for row in self._rows(sql, *values)]

    # uploads and their slices

    def upload(self, session: str) -> Upload | None:
        """The unfinished upload of this session."""
        return _one(self._select(Upload, "session = ?", session))

    def upload_at(self, bucket: str, path: str) -> Upload | None:
        """The unfinished upload to this path."""
        return _one(self._select(Upload, "bucket = ? AND path = ?", bucket, path))

    def uploads(self, bucket: str) -> list[Upload]:
        """All unfinished uploads of a bucket, by path."""
        return self._select(Upload, "bucket = ? ORDER BY path", bucket)

    def all_uploads(self) -> list[Upload]:
        """All unfinished uploads, oldest first."""
        return self._select(Upload, "true ORDER BY created_s")

    def add_upload(self, upload: Upload, uploadparts: str) -> None:
        """Adds an upload; its path must have none. The parts may be long and have a table of their own."""
        self._insert("uploads", astuple(upload))
        self._insert("uploadparts", (upload.session, uploadparts))

    def uploadparts(self, session: str) -> str:
        """The parts that `add_upload` stored."""
        return str(self._rows("SELECT parts FROM uploadparts WHERE session = ?", session)[0][0])

    def drop_upload(self, session: str) -> None:
        """Deletes an upload and its slices."""
        self._rows("DELETE FROM uploads WHERE session = ?", session)

    def created_before(self, limit_s: float) -> list[Upload]:
        """Unfinished uploads begun before this time."""
        return self._select(Upload, "created_s < ?", limit_s)

    def slices(self, session: str) -> list[tuple[int, int]]:
        """(offset, size) of every slice received, ascending."""
        return self._rows("SELECT offset, size FROM slices WHERE session = ? ORDER BY offset", session)

    def has_slice(self, session: str, offset_bytes: int) -> bool:
        """Whether the slice at this offset was received."""
        return bool(self._rows("SELECT 1 FROM slices WHERE session = ? AND offset = ?", session, offset_bytes))

    def received_bytes(self, session: str) -> int:
        """Sum of the slices received."""
        return int(self._rows("SELECT coalesce(sum(size), 0) FROM slices WHERE session = ?", session)[0][0])

    def add_slice(self, session: str, offset_bytes: int, size_bytes: int) -> bool:
        """Adds a slice, durable when this returns; False if the session has ended."""
        try:
            self._insert("slices", (session, offset_bytes, size_bytes))
        except sqlite3.IntegrityError:
            return False
        return True

    # objects

    def object_at(self, bucket: str, path: str) -> StoredObject | None:
        """The complete object at this path."""
        return _one(self._select(StoredObject, "bucket = ? AND path = ?", bucket, path))

    def object_with(self, bucket: str, sha: str, filesize: int) -> StoredObject | None:
        """An object of the bucket with this content."""
        return _one(
            self._select(StoredObject, "sha = ? AND bucket = ? AND filesize = ? LIMIT 1", sha, bucket, filesize)
        )

    def objects(self, bucket: str) -> list[StoredObject]:
        """All objects of a bucket, by path."""
        return self._select(StoredObject, "bucket = ? ORDER BY path", bucket)

    def put_object(self, stored: StoredObject) -> None:
        """Adds an object, or replaces the one at its path."""
        self._rows("DELETE FROM objects WHERE bucket = ? AND path = ?", stored.bucket, stored.path)
        self._insert("objects", astuple(stored))

    def drop_object(self, bucket: str, path: str) -> None:
        """Deletes an object."""
        self._rows("DELETE FROM objects WHERE bucket = ? AND path = ?", bucket, path)

    # folders

    def folder(self, bucket: str, path: str) -> Folder | None:
        """The folder of this path, which ends with a slash."""
        return _one(self._select(Folder, "bucket = ? AND path = ?", bucket, path))

    def add_folder(self, folder: Folder) -> None:
        """Adds a folder, unless it exists."""
        self._rows("INSERT OR IGNORE INTO folders VALUES (?, ?, ?, ?)", *astuple(folder))

    def drop_folder(self, bucket: str, path: str) -> None:
        """Deletes a folder."""
        self._rows("DELETE FROM folders WHERE bucket = ? AND path = ?", bucket, path)

    def children(self, bucket: str, folder: str, prefix: str, after: str, limit: int) -> list[str]:
        """Paths directly in a folder that have the prefix, by name, after `after`.

        A folder without a record exists while an object or a folder is in it.
        """
        sql = """
            SELECT DISTINCT child FROM (
              SELECT CASE instr(rest, '/') WHEN 0 THEN path
                     ELSE :folder || substr(rest, 1, instr(rest, '/')) END AS child
              FROM (SELECT path, substr(path, length(:folder) + 1) AS rest
                    FROM (SELECT path FROM objects WHERE bucket = :bucket
                          UNION ALL SELECT path FROM folders WHERE bucket = :bucket)
                    WHERE path >= :start AND path < :stop AND path <> :folder))
            WHERE child > :after ORDER BY child LIMIT :limit"""
        start = folder + prefix
        given = {
            "bucket": bucket,
            "folder": folder,
            "start": start,
            "stop": start + _AFTER_ANY_PATH,
            "after": after,
            "limit": limit,
        }
        with self._lock:
            return [path for (path,) in self._db.execute(sql, given)]

    def oldest_below(self, bucket: str, folder: str) -> float | None:
        """Creation time of the oldest object, upload or folder below a folder; None if it is empty."""
        sql = """
            SELECT min(created_s) FROM (SELECT path, created_s FROM objects WHERE bucket = ?1
                                        UNION ALL SELECT path, created_s FROM uploads WHERE bucket = ?1
                                        UNION ALL SELECT path, created_s FROM folders WHERE bucket = ?1)
            WHERE path > ?2 AND path < ?3"""
        created_s: float | None = self._rows(sql, bucket, folder, folder + _AFTER_ANY_PATH)[0][0]
        return created_s

    # signatures and content

    def use_signature(self, mac: bytes) -> bool:
        """Marks a one-time signature as used; False if it was used before."""
        with self._lock:
            return self._db.execute("INSERT OR IGNORE INTO used_signatures VALUES (?)", (mac,)).rowcount == 1

    def contents(self) -> set[str]:
        """Ids of all content that an upload or object refers to."""
        rows = self._rows("SELECT content FROM uploads UNION SELECT content FROM objects")
        return {str(content) for (content,) in rows}

    def _insert(self, table: str, values: tuple[object, ...]) -> None:
        self._rows(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", *values)  # noqa: S608 - our names


def _one(found: list[_Row]) -> _Row | None:
    return found[0] if found else None
