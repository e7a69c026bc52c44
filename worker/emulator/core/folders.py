"""Folders: created by request, or implied by the paths of objects; listed in pages."""

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

_MAX_PAGE_SIZE = 1000


class Folders:
    """The folders of all buckets."""

    def __init__(self, records: Records, settings: RuntimeSettings) -> None:
        self._records = records
        self._settings = settings

    def prepare(self, target: Target) -> None:
        """Checks that a file can exist at the target. Call it within a transaction.

        Raises:
            StorageError: A folder's path, a conflict with a file or folder, no parent folder.
        """
        if target.is_folder:
            raise StorageError(Reason.FOLDER_PATH)
        folder = target.path + "/"
        if (
            self._records.folder(target.bucket_id, folder)
            or self._records.oldest_below(target.bucket_id, folder) is not None
        ):
            raise StorageError(Reason.PATH_CONFLICT, "a folder of this name exists")
        self._check_parents(target)

    def create(self, target: Target, biz_attr: str) -> Folder:
        """Creates a folder.

        Raises:
            StorageError: Not a folder's path, a conflict with a file or folder, no parent folder.
        """
        if not target.path or not target.is_folder:
            raise StorageError(Reason.NOT_A_FOLDER_PATH)
        with self._records.transaction():
            if self._records.folder(target.bucket_id, target.path):
                raise StorageError(Reason.PATH_CONFLICT)
            if self._records.object_at(target.bucket_id, target.path.rstrip("/")):
                raise StorageError(Reason.PATH_CONFLICT, "a file of this name exists")
            self._check_parents(target)
            folder = Folder(target.bucket_id, target.path, biz_attr, self._settings.now())
            self._records.add_folder(folder)
        return folder

    def find(self, target: Target) -> Folder:
        """The folder, if a request created it.

        Raises:
            StorageError: No such folder.
        """
        folder = self._records.folder(target.bucket_id, target.path)
        if folder is None:
            raise StorageError(Reason.NOT_FOUND)
        return folder

    def delete(self, target: Target) -> None:
        """Removes an empty folder.

        Raises:
            StorageError: The root of the bucket, no such folder, not empty.
        """
        if not target.path:
            raise StorageError(Reason.BUCKET_ROOT, "a bucket cannot be deleted")
        with self._records.transaction():
            if self._records.oldest_below(target.bucket_id, target.path) is not None:
                raise StorageError(Reason.NOT_EMPTY)
            self.find(target)
            self._records.drop_folder(target.bucket_id, target.path)

    def page(self, target: Target, *, limit: int, context: str) -> tuple[list[Folder | StoredObject], str, bool]:
        """One page of a folder: entries by name, the context of the next page, whether this page is the last.

        Args:
            target: A folder, or a folder and a prefix of the names.
            limit: Entries on a page, at most 1000.
            context: From the previous page; empty for the first.

        Raises:
            StorageError: No such folder, an illegal limit, an invalid context.
        """
        if not 0 < limit <= _MAX_PAGE_SIZE:
            raise StorageError(Reason.PAGE_SIZE)
        folder, slash, prefix = target.path.rpartition("/")
        folder += slash
        if folder and self._at(target.bucket_id, folder) is None:
            raise StorageError(Reason.NOT_FOUND)
        try:
            after = base64.b64decode(context, altchars=b"-_", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise StorageError(Reason.PAGE_CONTEXT, "context") from None
        with self._records.transaction():
            paths = self._records.children(target.bucket_id, folder, prefix, after, limit + 1)
            found = [
                self._at(target.bucket_id, path)
                if path.endswith("/")
                else self._records.object_at(target.bucket_id, path)
                for path in paths[:limit]
            ]
        entries = [each for each in found if each is not None]
        is_last = len(paths) <= limit
        return entries, "" if is_last else base64.urlsafe_b64encode(entries[-1].path.encode()).decode(), is_last

    def _at(self, bucket_id: str, path: str) -> Folder | None:
        """The folder that a request created, or that its content implies."""
        created_s = self._records.oldest_below(bucket_id, path)
        return self._records.folder(bucket_id, path) or (
            None if created_s is None else Folder(bucket_id, path, "", created_s)
        )

    def _check_parents(self, target: Target) -> None:
        for path in target.parents():
            if self._records.folder(target.bucket_id, path):
                continue
            if not self._settings.create_parents:
                raise StorageError(Reason.NOT_FOUND, f"no folder {path}")
            if self._records.object_at(target.bucket_id, path.rstrip("/")):
                raise StorageError(Reason.PATH_CONFLICT, f"{path.rstrip('/')} is a file")
