"""Complete objects: put in one request, find, open, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.emulator.config import MIB
from worker.emulator.core.errors import Reason, StorageError
from worker.emulator.core.records import StoredObject

if TYPE_CHECKING:
    from io import FileIO

    from worker.emulator.config import RuntimeSettings
    from worker.emulator.core.content import Content
    from worker.emulator.core.disk import Disk
    from worker.emulator.core.folders import Folders
    from worker.emulator.core.journal_file import JournalFile
    from worker.emulator.core.records import Records
    from worker.emulator.core.targets import Target
    from worker.emulator.core.uploads import Uploads


class Objects:
    """The objects of all buckets."""

    def __init__(
        self,
        records: Records,
        disk: Disk,
        folders: Folders,
        uploads: Uploads,
        settings: RuntimeSettings,
        *,
        journal_file: JournalFile,
    ) -> None:
        self._records = records
        self._disk = disk
        self._folders = folders
        self._uploads = uploads
        self._settings = settings
        self._journal_file = journal_file

    def find(self, target: Target) -> StoredObject | None:
        """The object at a target."""
        return self._records.object_at(target.bucket_id, target.path)

    def put(self, target: Target, content: Content, *, sha: str, biz_attr: str, insert_only: bool) -> StoredObject:
        """Stores a whole file, durable when this returns. An unfinished upload to the path stays.

        Raises:
            StorageError: The digest differs, an object exists, or `Folders.prepare` refuses.
        """
        if sha and content.sha1() != sha:
            raise StorageError(Reason.DIGEST_DIFFERS)
        now = self._settings.now()
        temp_file = content.temp_file or self._disk.temp_file()
        try:
            if content.temp_file is None:
                temp_file.append(content.view)
            file = temp_file.sync()
            with self._records.transaction():
                self._folders.prepare(target)
                old = self.find(target)
                if old is not None and insert_only:
                    if sha and (old.sha, old.filesize) == (sha, content.size_bytes):
                        return old
                    raise StorageError(Reason.EXISTS)
                stored = StoredObject(
                    bucket=target.bucket_id,
                    path=target.path,
                    content=file,
                    filesize=content.size_bytes,
                    slice_size=MIB,
                    sha=sha,
                    biz_attr=biz_attr,
                    session="",
                    created_s=now,
                    modified_s=now,
                )
                self._records.put_object(stored)
            temp_file.keep()
            self._journal_file.published(stored, "whole", old, content.sha1() if self._journal_file.on else "")
        finally:
            if content.temp_file is None:
                temp_file.discard()
        if old is not None:
            self._disk.remove(old.content)
        return stored

    def open(self, target: Target) -> tuple[StoredObject, FileIO]:
        """The object and its bytes.

        Raises:
            StorageError: There is no object, or only an unfinished upload.
        """
        with self._records.transaction():
            stored = self.find(target)
            if stored is None:
                raise StorageError(Reason.NOT_FOUND if self._uploads.at(target) is None else Reason.NOT_COMPLETE)
            return stored, self._disk.open(stored.content)

    def delete(self, target: Target) -> None:
        """Removes the object and the unfinished upload at a path.

        Raises:
            StorageError: There is neither.
        """
        with self._records.transaction():
            stored, upload = self.find(target), self._uploads.at(target)
            if stored is None and upload is None:
                raise StorageError(Reason.NOT_FOUND)
            if stored is not None:
                self._records.drop_object(target.bucket_id, target.path)
            if upload is not None:
                self._records.drop_upload(upload.session)
        if stored is not None:
            self._journal_file.deleted(stored)
        if upload is not None:
            self._journal_file.ended(upload, "aborted")
        for each in (stored, upload):
            if each is not None:
                self._disk.remove(each.content)
