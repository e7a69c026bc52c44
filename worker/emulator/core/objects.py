"""Complete objects: put as a whole, looked at, opened, deleted."""

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
    from worker.emulator.core.ledger import Ledger
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
        ledger: Ledger,
    ) -> None:
        self._records = records
        self._disk = disk
        self._folders = folders
        self._uploads = uploads
        self._settings = settings
        self._ledger = ledger

    def find(self, target: Target) -> StoredObject | None:
        """The object at a target."""
        return self._records.object_at(target.place, target.path)

    def put(self, target: Target, content: Content, *, sha: str, biz_attr: str, insert_only: bool) -> StoredObject:
        """Stores a whole file in one go, on disk when this returns. An unfinished upload to the path stays.

        Raises:
            StorageError: the digest differs, a file is there, and what `Folders.prepare` refuses.
        """
        if sha and content.sha1() != sha:
            raise StorageError(Reason.DIGEST_DIFFERS)
        now = self._settings.now()
        draft = content.draft or self._disk.draft()
        try:
            if content.draft is None:
                draft.append(content.view)
            file = draft.sync()
            with self._records.transaction():
                self._folders.prepare(target)
                old = self.find(target)
                if old is not None and insert_only:
                    if sha and (old.sha, old.filesize) == (sha, content.size_bytes):
                        return old
                    raise StorageError(Reason.EXISTS)
                stored = StoredObject(
                    bucket=target.place,
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
            draft.keep()
            self._ledger.published(stored, "whole", old, content.sha1() if self._ledger.on else "")
        finally:
            if content.draft is None:
                draft.discard()
        if old is not None:
            self._disk.remove(old.content)
        return stored

    def open(self, target: Target) -> tuple[StoredObject, FileIO]:
        """The object and its bytes.

        Raises:
            StorageError: there is none, there is an unfinished upload only.
        """
        with self._records.transaction():
            stored = self.find(target)
            if stored is None:
                raise StorageError(Reason.NOT_FOUND if self._uploads.at(target) is None else Reason.NOT_COMPLETE)
            return stored, self._disk.open(stored.content)

    def delete(self, target: Target) -> None:
        """Removes the object and the unfinished upload at a path, whichever are there.

        Raises:
            StorageError: there is neither.
        """
        with self._records.transaction():
            stored, upload = self.find(target), self._uploads.at(target)
            if stored is None and upload is None:
                raise StorageError(Reason.NOT_FOUND)
            if stored is not None:
                self._records.drop_object(target.place, target.path)
            if upload is not None:
                self._records.drop_upload(upload.session)
        if stored is not None:
            self._ledger.deleted(stored)
        if upload is not None:
            self._ledger.ended(upload, "aborted")
        for each in (stored, upload):
            if each is not None:
                self._disk.remove(each.content)
