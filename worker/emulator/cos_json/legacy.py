"""`upload_slice`: the single operation of an older generation of clients.

The first request has no bytes; it begins or resumes an upload. Each further request has one slice, in order. The
response to the last slice is that of a finish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.emulator.config import MIB
from worker.emulator.core.prefix_states import Part
from worker.emulator.core.records import StoredObject
from worker.emulator.core.uploads import UploadRequest
from worker.emulator.cos_json.targets import addresses
from worker.emulator.cos_json.uploadparts import read_sha

if TYPE_CHECKING:
    from worker.emulator.core.content import Content
    from worker.emulator.core.records import Upload
    from worker.emulator.core.store import Store
    from worker.emulator.cos_json.call import Call, Data


class LegacySliceUpload:
    """Runs `upload_slice` on the same uploads as the current operations."""

    def __init__(self, store: Store) -> None:
        self._records = store.records
        self._uploads = store.uploads

    def run(self, call: Call, *, insert_only: bool) -> Data:
        """Begins, resumes, continues or finishes an upload.

        Raises:
            CosError: As for init, data and finish.
            StorageError: As for init, data and finish.
        """
        session = call.text("session")
        if call.form.content is not None:
            return self._receive(call, session, call.form.content)
        upload = self._uploads.at(call.target)
        if upload is None or upload.session != session:
            opened = self._begin(call, insert_only=insert_only)
            if isinstance(opened, StoredObject):
                return addresses(call.target, call.host)
            upload = opened
        received = self._records.received_bytes(upload.session)
        if received == upload.filesize:
            return self._finish(call, upload.session, upload.filesize, upload.sha)
        return {"session": upload.session, "offset": received, "slice_size": upload.slice_size}

    def _begin(self, call: Call, *, insert_only: bool) -> Upload | StoredObject:
        sha, filesize = read_sha(call.text("sha")), call.number("filesize", missing=-5971)
        request = UploadRequest(
            filesize=filesize,
            slice_size=call.number("slice_size") if call.text("slice_size") else MIB,
            sha=sha,
            parts=(Part(filesize, sha),) if sha else (),  # these clients send no prefix states
            insert_only=insert_only,
            biz_attr=call.text("biz_attr"),
        )
        return self._uploads.begin(call.target, request, slice_size=call.slice_size, serial=True)

    def _receive(self, call: Call, session: str, content: Content) -> Data:
        done = self._records.object_at(call.target.bucket_id, call.target.path)
        if done is not None and session and done.session == session:
            return self._finish(call, session, done.filesize, done.sha)
        upload = self._uploads.find(call.target, session)
        offset_bytes = call.number("offset", missing=-286)
        self._uploads.receive(upload, offset_bytes, content.whole())
        if self._records.received_bytes(session) == upload.filesize:
            return self._finish(call, session, upload.filesize, upload.sha)
        return {"session": session, "offset": offset_bytes, "datalen": content.size_bytes}

    def _finish(self, call: Call, session: str, filesize: int, sha: str) -> Data:
        self._uploads.finish(call.target, session, filesize=filesize, sha=sha)
        return addresses(call.target, call.host)
