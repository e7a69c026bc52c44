"""Folders: made on request, or implied by what is in them; listed page by page."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from worker.emulator.core.errors import Reason, StorageError
from worker.emulator.core.records import Folder

if TYPE_CHECKING:
    from worker.emulator.config import RuntimeSettings
    from worker.emulator.core.records import Records, StoredObject
    from worker.emulator.core.targets import Target

_MOST_LISTED = 1000


class Folders:
    """The folders of all buckets."""

    def __init__(self, records: Records, settings: RuntimeSettings) -> None:
        self._records = records
        self._settings = settings

    def prepare(self, target: Target) -> None:
        """Sees to it that a file can be put at the target. Call it within a transaction.

        Raises:
            StorageError: the target is a folder's, a file or folder is in the way, no such folder.
        """
        if target.is_folder:
            raise StorageError(Reason.FOLDER_PATH)
        folder = target.path + "/"
        if self._records.folder(target.place, folder) or self._records.begun_inside(target.place, folder) is not None:
            raise StorageError(Reason.IN_THE_WAY, "a folder of this name exists")
        self._check_parents(target)

    def create(self, target: Target, biz_attr: str) -> Folder:
        """Makes a folder.

        Raises:
            StorageError: not a folder's path, it exists or a file is in the way, no such parent.
        """
        if not target.path or not target.is_folder:
            raise StorageError(Reason.NO_FOLDER_PATH)
        with self._records.transaction():
            if self._records.folder(target.place, target.path):
                raise StorageError(Reason.IN_THE_WAY)
            if self._records.object_at(target.place, target.path.rstrip("/")):
                raise StorageError(Reason.IN_THE_WAY, "a file of this name exists")
            self._check_parents(target)
            folder = Folder(target.place, target.path, biz_attr, self._settings.now())
            self._records.add_folder(folder)
        return folder

    def find(self, target: Target) -> Folder:
        """The folder, one that somebody made.

        Raises:
            StorageError: there is none.
        """
        folder = self._records.folder(target.place, target.path)
        if folder is None:
            raise StorageError(Reason.NOT_FOUND)
        return folder

    def delete(self, target: Target) -> None:
        """Removes an empty folder.

        Raises:
            StorageError: the bucket itself, there is none, it is not empty.
        """
        if not target.path:
            raise StorageError(Reason.THE_BUCKET_ITSELF, "a bucket cannot be deleted")
        with self._records.transaction():
            if self._records.begun_inside(target.place, target.path) is not None:
                raise StorageError(Reason.NOT_EMPTY)
            self.find(target)
            self._records.drop_folder(target.place, target.path)

    def page(self, target: Target, *, most: int, context: str) -> tuple[list[Folder | StoredObject], str, bool]:
        """What lies directly in a folder: entries by name, the context of the next page, and whether this was the last.

        Args:
            target: A folder, or a folder and the beginning of the names wanted.
            most: Entries on a page, at most 1000.
            context: What the page before gave; empty for the first.

        Raises:
            StorageError: no such folder, the size of the page, a context that was never given.
        """
        if not 0 < most <= _MOST_LISTED:
            raise StorageError(Reason.PAGE_SIZE)
        folder, slash, prefix = target.path.rpartition("/")
        folder += slash
        if folder and self._at(target.place, folder) is None:
            raise StorageError(Reason.NOT_FOUND)
        try:
            after = base64.b64decode(context, altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise StorageError(Reason.PAGE_CONTEXT, "context") from None
        with self._records.transaction():
            paths = self._records.children(target.place, folder, prefix, after, most + 1)
            found = [
                self._at(target.place, path) if path.endswith("/") else self._records.object_at(target.place, path)
                for path in paths[:most]
            ]
        entries = [each for each in found if each is not None]
        over = len(paths) <= most
        return entries, "" if over else base64.urlsafe_b64encode(entries[-1].path.encode()).decode(), over

    def _at(self, place: str, path: str) -> Folder | None:
        """The folder that somebody made, or that is implied by what is in it."""
        began_s = self._records.begun_inside(place, path)
        return self._records.folder(place, path) or (None if began_s is None else Folder(place, path, "", began_s))

    def _check_parents(self, target: Target) -> None:
        for path in target.parents():
            if self._records.folder(target.place, path):
                continue
            if not self._settings.create_parents:
                raise StorageError(Reason.NOT_FOUND, f"no folder {path}")
            if self._records.object_at(target.place, path.rstrip("/")):
                raise StorageError(Reason.IN_THE_WAY, f"{path.rstrip('/')} is a file")
