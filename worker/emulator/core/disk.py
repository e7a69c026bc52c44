"""The bytes of objects and unfinished uploads: one file each, named by a random id that the records refer to.

The file of an upload becomes the file of the object: a publish changes the records alone and is as atomic as they are.
A crash can leave files that no record refers to; the next start removes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from io import FileIO
    from pathlib import Path


class Disk:
    """A flat folder of content files.

    Args:
        folder: An existing folder.
        fsync: Whether acknowledged bytes are synced to the disk.
        discard: Whether slices are dropped instead of written; they read as zeros.
    """

    def __init__(self, folder: Path, *, fsync: bool, discard: bool = False) -> None:
        self._folder = folder
        self._fsync = fsync
        self._discard = discard

    def sweep(self, referred: Collection[str]) -> None:
        """Removes every file whose id is not among these."""
        for path in self._folder.iterdir():
            if path.name not in referred:
                path.unlink()

    def create(self, size_bytes: int) -> str:
        """Makes a sparse file and returns its id.

        Raises:
            OSError: The file cannot be made; EFBIG if the file system has no files of this size.
        """
        content = secrets.token_hex(16)
        fd = os.open(self._path(content), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, size_bytes)
            self._sync_new(fd)
        except OSError:
            self.remove(content)
            raise
        finally:
            os.close(fd)
        return content

    def link(self, content: str) -> str:
        """Makes another id for the same bytes; each is removed on its own."""
        copy = secrets.token_hex(16)
        os.link(self._path(content), self._path(copy))
        self._sync_folder()
        return copy

    def write(self, content: str, offset_bytes: int, view: memoryview) -> None:
        """Writes the bytes at an offset; they are durable when this returns, unless `fsync` is off."""
        if self._discard:
            return
        fd = os.open(self._path(content), os.O_WRONLY)
        try:
            _write_all(fd, view, offset_bytes)
            if self._fsync:
                os.fdatasync(fd)
        finally:
            os.close(fd)

    def holds(self, content: str, offset_bytes: int, view: memoryview) -> bool:
        """Whether the bytes at an offset equal these."""
        if self._discard:
            return True
        with self.open(content) as file:
            file.seek(offset_bytes)
            return file.read(len(view)) == view

    def open(self, content: str) -> FileIO:
        """Opens a file for reading; the handle stays readable after `remove`."""
        return self._path(content).open("rb", buffering=0)

    def sha1(self, content: str) -> str:
        """Lower-case hex digest of the bytes."""
        with self.open(content) as file:
            return hashlib.file_digest(file, "sha1").hexdigest()

    def remove(self, content: str) -> None:
        """Removes a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._path(content).unlink()

    def temp_file(self) -> TempFile:
        """Makes an empty file to append to."""
        return TempFile(self, secrets.token_hex(16))

    def _path(self, content: str) -> Path:
        return self._folder / content

    def _sync_new(self, fd: int) -> None:
        if self._fsync:
            os.fsync(fd)
            self._sync_folder()

    def _sync_folder(self) -> None:
        if not self._fsync:
            return
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class TempFile:
    """A file that receives a whole object; it is removed unless `keep` is called."""

    def __init__(self, disk: Disk, content: str) -> None:
        self._disk = disk
        self._content = content
        self._kept = False
        self._size_bytes = 0
        self._fd = os.open(disk._path(content), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # noqa: SLF001 - its part

    def append(self, view: memoryview) -> None:
        """Appends bytes."""
        _write_all(self._fd, view, self._size_bytes)
        self._size_bytes += len(view)

    def sha1(self) -> str:
        """Lower-case hex digest of all bytes."""
        return self._disk.sha1(self._content)

    def read(self) -> bytes:
        """All bytes."""
        return os.pread(self._fd, self._size_bytes, 0)

    def corrupt(self) -> None:
        """Inverts the first byte."""
        os.pwrite(self._fd, bytes([os.pread(self._fd, 1, 0)[0] ^ 0xFF]), 0)

    def sync(self) -> str:
        """Syncs the file to the disk and returns its id."""
        self._disk._sync_new(self._fd)  # noqa: SLF001 - its part
        return self._content

    def keep(self) -> None:
        """Makes `discard` keep the file."""
        self._kept = True

    def discard(self) -> None:
        """Closes the file, and removes it unless it is kept."""
        os.close(self._fd)
        if not self._kept:
            self._disk.remove(self._content)


def _write_all(fd: int, view: memoryview, offset_bytes: int) -> None:
    written = 0
    while written < len(view):
        written += os.pwrite(fd, view[written:], offset_bytes + written)
