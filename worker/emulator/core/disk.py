"""The bytes of objects and unfinished uploads: one file each, named by a random id, referred to by the records.

An unfinished upload's file is the object's file later on: publishing is a change of the records alone, and therefore
as atomic as they are. A file that no record refers to is a left-over of a crash and is swept at the next start.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from typing import TYPE_CHECKING

from worker.emulator.private import private_folder

if TYPE_CHECKING:
    from collections.abc import Collection
    from io import FileIO
    from pathlib import Path


class Disk:
    """A flat folder of content files.

    Args:
        folder: Made if missing.
        fsync: Whether what is acknowledged has reached the disk, or only the operating system.
        discard: Whether slices are forgotten instead: what is read of them is zeros.
    """

    def __init__(self, folder: Path, *, fsync: bool, discard: bool = False) -> None:
        private_folder(folder)
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
            OSError: It cannot be made; EFBIG if no file can be so large here.
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
        """A second id for the same bytes, with a life of its own."""
        copy = secrets.token_hex(16)
        os.link(self._path(content), self._path(copy))
        self._sync_folder()
        return copy

    def write(self, content: str, offset_bytes: int, view: memoryview) -> None:
        """Puts the bytes at their place; when this returns they are kept."""
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
        """Whether these very bytes are at this place."""
        if self._discard:
            return True
        with self.open(content) as file:
            file.seek(offset_bytes)
            return file.read(len(view)) == view

    def open(self, content: str) -> FileIO:
        """The bytes for reading; they stay readable through this handle even if the content is removed."""
        return self._path(content).open("rb", buffering=0)

    def sha1(self, content: str) -> str:
        """Lower-case hex digest of the bytes."""
        with self.open(content) as file:
            return hashlib.file_digest(file, "sha1").hexdigest()

    def remove(self, content: str) -> None:
        """Removes a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._path(content).unlink()

    def draft(self) -> Draft:
        """An empty file to append to, which vanishes unless it is kept."""
        return Draft(self, secrets.token_hex(16))

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


class Draft:
    """A file that is being received as a whole."""

    def __init__(self, disk: Disk, content: str) -> None:
        self._disk = disk
        self._content = content
        self._kept = False
        self._size_bytes = 0
        self._fd = os.open(disk._path(content), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # noqa: SLF001 - its part

    def append(self, view: memoryview) -> None:
        """Adds bytes at the end."""
        _write_all(self._fd, view, self._size_bytes)
        self._size_bytes += len(view)

    def sha1(self) -> str:
        """Lower-case hex digest of everything appended."""
        return self._disk.sha1(self._content)

    def read(self) -> bytes:
        """Everything appended."""
        return os.pread(self._fd, self._size_bytes, 0)

    def spoil(self) -> None:
        """Changes the first byte."""
        os.pwrite(self._fd, bytes([os.pread(self._fd, 1, 0)[0] ^ 0xFF]), 0)

    def sync(self) -> str:
        """Brings the file to the disk and returns its id."""
        self._disk._sync_new(self._fd)  # noqa: SLF001 - its part
        return self._content

    def keep(self) -> None:
        """From now on the file stays."""
        self._kept = True

    def discard(self) -> None:
        """Lets go of the file, and removes it unless it was kept."""
        os.close(self._fd)
        if not self._kept:
            self._disk.remove(self._content)


def _write_all(fd: int, view: memoryview, offset_bytes: int) -> None:
    written = 0
    while written < len(view):
        written += os.pwrite(fd, view[written:], offset_bytes + written)
