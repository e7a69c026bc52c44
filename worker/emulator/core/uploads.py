"""Uploads in slices: begin, receive, list, finish. Every acknowledgement is on disk before it is given."""

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
    from worker.emulator.core.ledger import Ledger
    from worker.emulator.core.records import Records
    from worker.emulator.core.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRequest:
    """What a client asks for at init. `sha` and `parts` are empty if it wants no verification."""

    filesize: int
    slice_size: int
    sha: str = ""
    parts: tuple[Part, ...] = ()
    insert_only: bool = True
    biz_attr: str = ""


class Uploads:
    """The unfinished uploads of all buckets, at most one a path."""

    def __init__(
        self,
        records: Records,
        disk: Disk,
        folders: Folders,
        config: EmulatorConfig,
        settings: RuntimeSettings,
        *,
        ledger: Ledger,
    ) -> None:
        self._records = records
        self._disk = disk
        self._folders = folders
        self._config = config
        self._settings = settings
        self._ledger = ledger
        self._locks = KeyedLock()

    def begin(
        self, target: Target, intent: UploadRequest, *, slice_size: int | None, serial: bool
    ) -> Upload | StoredObject:
        """Begins an upload; answers the object instead if the bytes are here already.

        Args:
            target: Where to.
            intent: What.
            slice_size: The size that the client has to use, whatever it asked for.
            serial: Slices must come one after the other.

        Raises:
            StorageError: slice size, a file is there, an unfinished upload
                is there, and what `Folders.prepare` refuses.
        """
        if intent.slice_size not in self._config.slice_sizes:
            raise StorageError(Reason.SLICE_SIZE)
        self.expire()
        upload = self._new(target, intent)
        upload = replace(upload, slice_size=slice_size or upload.slice_size, serial=int(serial or upload.serial))
        there: Upload | StoredObject | None = None
        try:
            with self._records.transaction():
                self._folders.prepare(target)
                known = self._known(target, intent)
                if known is None:
                    self._records.add_upload(upload, json.dumps([asdict(part) for part in intent.parts]))
            there = known or upload
            if there is upload:
                self._ledger.opened(upload)
        finally:
            if there is not upload:
                self._disk.remove(upload.content)
        return there

    def _new(self, target: Target, intent: UploadRequest) -> Upload:
        return Upload(
            session=secrets.token_hex(48),
            bucket=target.place,
            path=target.path,
            content=self._disk.create(intent.filesize),
            filesize=intent.filesize,
            slice_size=self._settings.forced_slice_size or intent.slice_size,
            serial=int(self._settings.serial_upload),
            sha=intent.sha,
            insert_only=int(intent.insert_only),
            biz_attr=intent.biz_attr,
            created_s=self._settings.now(),
        )

    def _known(self, target: Target, intent: UploadRequest) -> StoredObject | None:
        """The object that makes an upload needless, if there is one."""
        stored = self._records.object_at(target.place, target.path)
        if stored is not None and intent.insert_only:
            if intent.sha and (stored.sha, stored.filesize) == (intent.sha, intent.filesize):
                return stored
            raise StorageError(Reason.EXISTS)
        upload = self._records.upload_at(target.place, target.path)
        if upload is not None:
            raise StorageError(
                Reason.UNFINISHED_OTHER_DIGEST
                if intent.sha and upload.sha and intent.sha != upload.sha
                else Reason.UNFINISHED
            )
        if not intent.sha or not self._settings.instant_upload:
            return None
        twin = self._records.object_with(target.place, intent.sha, intent.filesize)
        if twin is None:
            return None
        now = self._settings.now()
        copy = replace(
            twin,
            path=target.path,
            content=self._disk.link(twin.content),
            biz_attr=intent.biz_attr,
            session="",
            created_s=now,
            modified_s=now,
        )
        self._records.put_object(copy)
        if stored is not None:
            self._disk.remove(stored.content)
        self._ledger.published(copy, "copy", stored)
        return copy

    def find(self, target: Target, session: str) -> Upload:
        """The unfinished upload that a session names.

        Raises:
            StorageError: no session given, none that is known for this target.
        """
        if not session:
            raise StorageError(Reason.NO_SESSION)
        upload = self._records.upload(session)
        if upload is None or (upload.bucket, upload.path) != (target.place, target.path) or self._is_old(upload):
            raise StorageError(Reason.SESSION_UNKNOWN)
        return upload

    def at(self, target: Target) -> Upload | None:
        """The unfinished upload to a target."""
        upload = self._records.upload_at(target.place, target.path)
        return None if upload is None or self._is_old(upload) else upload

    def receive(self, upload: Upload, offset_bytes: int, view: memoryview) -> None:
        """Keeps a slice. One that is here already is compared, never written over.

        Raises:
            StorageError: offset, length, out of order, not the bytes that are here,
                the session ended meanwhile.
        """
        if offset_bytes % upload.slice_size or offset_bytes >= upload.filesize:
            raise StorageError(Reason.OFFSET)
        due_bytes = min(upload.slice_size, upload.filesize - offset_bytes)
        if len(view) != due_bytes:
            raise StorageError(
                Reason.SLICE_TOO_SHORT if len(view) < due_bytes else Reason.SLICE_TOO_LONG,
                f"{len(view)} bytes where {due_bytes} are due",
            )
        with self._locks.hold((upload.session, offset_bytes)):
            if self._records.slice_at(upload.session, offset_bytes) is not None:
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
        """Checks a complete upload and makes it the object at its path; answers the same again when asked again.

        Raises:
            StorageError: no such session, not complete or another size, the digest is missing, the
                digest or a state is wrong, which ends the upload, a file came to be there meanwhile.
        """
        with self._locks.hold(session):
            done = self._records.object_at(target.place, target.path)
            if done is not None and session and done.session == session and self._is_fresh(done):
                if done.filesize != filesize:
                    raise StorageError(Reason.SIZE_DIFFERS)
                return done
            upload = self.find(target, session)
            if filesize != upload.filesize or self._records.received_bytes(session) != upload.filesize:
                raise StorageError(Reason.SIZE_DIFFERS)
            try:
                self._verify(upload, sha)
            except StorageError as refused:
                if refused.why is Reason.DIGEST_DIFFERS:  # these bytes will never do, and none of them can be replaced
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
            old = self._records.object_at(target.place, target.path)
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
        sha1 = self._disk.sha1(stored.content) if self._ledger.on and not self._config.discard else ""
        self._ledger.published(stored, "finish", old, sha1)
        if old is not None:
            self._disk.remove(old.content)
        return stored

    def discard(self, upload: Upload, how: str) -> None:
        """Forgets an unfinished upload and its bytes; `how` that came is noted."""
        self._records.drop_upload(upload.session)
        self._ledger.ended(upload, how)
        self._disk.remove(upload.content)

    def expire(self, *, older_than_s: float | None = None) -> int:
        """Discards uploads that are older than this, or than the session's life, and returns how many."""
        age_s = self._settings.session_ttl_s if older_than_s is None else older_than_s
        old = self._records.created_before(self._settings.now() - age_s)
        for upload in old:
            self.discard(upload, "expired")
        return len(old)

    def _is_old(self, upload: Upload) -> bool:
        return self._settings.now() - upload.created_s > self._settings.session_ttl_s

    def _is_fresh(self, stored: StoredObject) -> bool:
        return self._settings.now() - stored.modified_s <= self._config.finished_ttl_s
