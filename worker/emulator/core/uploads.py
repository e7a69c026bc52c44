"""Uploads in slices: begin, receive, finish. Data is durable before it is acknowledged."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from worker.emulator.core.errors import Reason, StorageError
from worker.emulator.core.keyed_lock import KeyedLock
from worker.emulator.core.prefix_states import Part, first_mismatch
from worker.emulator.core.records import StoredObject, Upload

if TYPE_CHECKING:
    from worker.emulator.config import EmulatorConfig, RuntimeSettings
    from worker.emulator.core.disk import Disk
    from worker.emulator.core.folders import Folders
    from worker.emulator.core.journal_file import JournalFile
    from worker.emulator.core.records import Records
    from worker.emulator.core.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """The parameters of an init. `sha` and `parts` are empty for an upload without verification."""

    filesize: int
    slice_size: int
    sha: str = ""
    parts: tuple[Part, ...] = ()
    insert_only: bool = True
    biz_attr: str = ""


class Uploads:
    """The unfinished uploads of all buckets, at most one per path."""

    def __init__(
        self,
        records: Records,
        disk: Disk,
        folders: Folders,
        config: EmulatorConfig,
        settings: RuntimeSettings,
        *,
        journal_file: JournalFile,
    ) -> None:
        self._records = records
        self._disk = disk
        self._folders = folders
        self._config = config
        self._settings = settings
        self._journal_file = journal_file
        self._locks = KeyedLock()

    def begin(
        self, target: Target, request: UploadRequest, *, slice_size: int | None, serial: bool
    ) -> Upload | StoredObject:
        """Begins an upload; returns the object instead if the store has its bytes already.

        Args:
            target: Path of the object.
            request: Parameters of the init.
            slice_size: A slice size that overrides that of the request.
            serial: Whether slices must come in order.

        Raises:
            StorageError: An illegal slice size, an object or an unfinished upload exists, or `Folders.prepare` refuses.
        """
        if request.slice_size not in self._config.slice_sizes:
            raise StorageError(Reason.SLICE_SIZE)
        self.expire()
        upload = self._new(target, request, slice_size or self._settings.forced_slice_size, serial=serial)
        result: Upload | StoredObject | None = None
        try:
            with self._records.transaction():
                self._folders.prepare(target)
                existing = self._existing_object(target, request)
                if existing is None:
                    self._records.add_upload(upload, json.dumps([asdict(part) for part in request.parts]))
            result = existing or upload
            if result is upload:
                self._journal_file.opened(upload)
        finally:
            if result is not upload:
                self._disk.remove(upload.content)
        return result

    def _new(self, target: Target, request: UploadRequest, slice_size: int | None, *, serial: bool) -> Upload:
        return Upload(
            session=secrets.token_hex(48),
            bucket=target.bucket_id,
            path=target.path,
            content=self._disk.create(request.filesize),
            filesize=request.filesize,
            slice_size=slice_size or request.slice_size,
            serial=int(serial or self._settings.serial_upload),
            sha=request.sha,
            insert_only=int(request.insert_only),
            biz_attr=request.biz_attr,
            created_s=self._settings.now(),
        )

    def _existing_object(self, target: Target, request: UploadRequest) -> StoredObject | None:
        """The object that makes this upload unnecessary, if there is one."""
        stored = self._records.object_at(target.bucket_id, target.path)
        if stored is not None and request.insert_only:
            if request.sha and (stored.sha, stored.filesize) == (request.sha, request.filesize):
                return stored
            raise StorageError(Reason.EXISTS)
        upload = self._records.upload_at(target.bucket_id, target.path)
        if upload is not None:
            raise StorageError(
                Reason.UPLOAD_IN_PROGRESS_OTHER_DIGEST
                if request.sha and upload.sha and request.sha != upload.sha
                else Reason.UPLOAD_IN_PROGRESS
            )
        if not request.sha or not self._settings.instant_upload:
            return None
        duplicate = self._records.object_with(target.bucket_id, request.sha, request.filesize)
        if duplicate is None:
            return None
        now = self._settings.now()
        copy = replace(
            duplicate,
            path=target.path,
            content=self._disk.link(duplicate.content),
            biz_attr=request.biz_attr,
            session="",
            created_s=now,
            modified_s=now,
        )
        self._records.put_object(copy)
        if stored is not None:
            self._disk.remove(stored.content)
        self._journal_file.published(copy, "copy", stored)
        return copy

    def find(self, target: Target, session: str) -> Upload:
        """The unfinished upload of a session.

        Raises:
            StorageError: No session, or it is not one of this target.
        """
        if not session:
            raise StorageError(Reason.NO_SESSION)
        upload = self._records.upload(session)
        if (
            upload is None
            or (upload.bucket, upload.path) != (target.bucket_id, target.path)
            or self._is_expired(upload)
        ):
            raise StorageError(Reason.SESSION_UNKNOWN)
        return upload

    def at(self, target: Target) -> Upload | None:
        """The unfinished upload to a target."""
        upload = self._records.upload_at(target.bucket_id, target.path)
        return None if upload is None or self._is_expired(upload) else upload

    def receive(self, upload: Upload, offset_bytes: int, view: memoryview) -> None:
        """Stores a slice. A slice received before is compared, never overwritten.

        Raises:
            StorageError: Wrong offset, length, order or bytes, or the session has ended.
        """
        if offset_bytes % upload.slice_size or offset_bytes >= upload.filesize:
            raise StorageError(Reason.OFFSET)
        due_bytes = min(upload.slice_size, upload.filesize - offset_bytes)
        if len(view) != due_bytes:
            raise StorageError(
                Reason.SLICE_TOO_SHORT if len(view) < due_bytes else Reason.SLICE_TOO_LONG,
                f"{len(view)} bytes instead of {due_bytes}",
            )
        with self._locks.hold((upload.session, offset_bytes)):
            if self._records.has_slice(upload.session, offset_bytes):
                if not self._disk.holds(upload.content, offset_bytes, view):
                    raise StorageError(Reason.SLICE_DIFFERS)
                return
            if upload.serial and offset_bytes != self._records.received_bytes(upload.session):
                raise StorageError(Reason.OUT_OF_ORDER)
            try:
                self._disk.write(upload.content, offset_bytes, view)
            except FileNotFoundError:
                raise StorageError(Reason.SESSION_UNKNOWN) from None
            if not self._records.add_slice(upload.session, offset_bytes, len(view)):
                raise StorageError(Reason.SESSION_UNKNOWN)

    def finish(self, target: Target, session: str, *, filesize: int, sha: str) -> StoredObject:
        """Verifies a complete upload and publishes it at its path. Idempotent for `finished_ttl_s`.

        Raises:
            StorageError: No such session, not complete, another size, no digest, an object exists. A wrong digest or
                state also discards the upload.
        """
        with self._locks.hold(session):
            done = self._records.object_at(target.bucket_id, target.path)
            if done is not None and session and done.session == session and self._can_repeat_finish(done):
                if done.filesize != filesize:
                    raise StorageError(Reason.SIZE_DIFFERS)
                return done
            upload = self.find(target, session)
            if filesize != upload.filesize or self._records.received_bytes(session) != upload.filesize:
                raise StorageError(Reason.SIZE_DIFFERS)
            try:
                self._verify(upload, sha)
            except StorageError as error:
                if error.reason is Reason.DIGEST_DIFFERS:  # the received slices cannot be replaced
                    self.discard(upload, "refused")
                raise
            return self._publish(target, upload)

    def _verify(self, upload: Upload, sha: str) -> None:
        if not upload.sha:
            return
        if not sha:
            raise StorageError(Reason.NO_DIGEST)
        if sha != upload.sha:
            raise StorageError(Reason.DIGEST_DIFFERS)
        parts = [Part(**each) for each in json.loads(self._records.uploadparts(upload.session))]
        with self._disk.open(upload.content) as file:
            wrong = first_mismatch(file, parts)
        if wrong is not None:
            raise StorageError(Reason.DIGEST_DIFFERS, f"in the bytes before {wrong}")

    def _publish(self, target: Target, upload: Upload) -> StoredObject:
        with self._records.transaction():
            if self._records.upload(upload.session) is None:
                raise StorageError(Reason.SESSION_UNKNOWN)
            old = self._records.object_at(target.bucket_id, target.path)
            if old is not None and upload.insert_only:
                raise StorageError(Reason.EXISTS)
            now = self._settings.now()
            stored = StoredObject(
                bucket=upload.bucket,
                path=upload.path,
                content=upload.content,
                filesize=upload.filesize,
                slice_size=upload.slice_size,
                sha=upload.sha,
                biz_attr=upload.biz_attr,
                session=upload.session,
                created_s=now,
                modified_s=now,
            )
            self._records.drop_upload(upload.session)
            self._records.put_object(stored)
        sha1 = self._disk.sha1(stored.content) if self._journal_file.on and not self._config.discard else ""
        self._journal_file.published(stored, "finish", old, sha1)
        if old is not None:
            self._disk.remove(old.content)
        return stored

    def discard(self, upload: Upload, how: str) -> None:
        """Removes an unfinished upload and its bytes; `how` is for the journal file."""
        self._records.drop_upload(upload.session)
        self._journal_file.ended(upload, how)
        self._disk.remove(upload.content)

    def expire(self, *, older_than_s: float | None = None) -> int:
        """Discards uploads older than this, or than `session_ttl_s`, and returns how many."""
        age_s = self._settings.session_ttl_s if older_than_s is None else older_than_s
        old = self._records.created_before(self._settings.now() - age_s)
        for upload in old:
            self.discard(upload, "expired")
        return len(old)

    def _is_expired(self, upload: Upload) -> bool:
        return self._settings.now() - upload.created_s > self._settings.session_ttl_s

    def _can_repeat_finish(self, stored: StoredObject) -> bool:
        return self._settings.now() - stored.modified_s <= self._config.finished_ttl_s
