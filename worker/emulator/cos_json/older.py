"""`upload_slice`: the one operation with which clients of the generation before send slices, to the same paths.

The first request has no bytes and begins or resumes an upload; those that follow bring the slices in order; the answer
to the last one is that of a finish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.emulator.config import MIB
from worker.emulator.core.prefix_states import Part
from worker.emulator.core.records import StoredObject
from worker.emulator.core.uploads import UploadRequest
from worker.emulator.cos_json.errors import CosError
from worker.emulator.cos_json.targets import addresses
from worker.emulator.cos_json.uploadparts import read_sha

if TYPE_CHECKING:
    from worker.emulator.core.records import Records, Upload
    from worker.emulator.core.uploads import Uploads
    from worker.emulator.cos_json.call import Call, Data


class OlderSlices:
    """Carries out `upload_slice` on the same uploads that the newer operations work on."""

    def __init__(self, records: Records, uploads: Uploads) -> None:
        self._records = records
        self._uploads = uploads

    def run(self, call: Call, *, insert_only: bool) -> Data:
        """Begins, resumes, goes on with or ends an upload.

        Raises:
            CosError: As init, data and finish do.
        """
        session = call.text("session")
        if call.form.content is not None:
            return self._receive(call, session)
        upload = self._uploads.at(call.target)
        if upload is None or upload.session != session:
            begun = self._begin(call, insert_only=insert_only)
            if isinstance(begun, StoredObject):
                return addresses(call.target, call.host)
            upload = begun
        received = self._records.received_bytes(upload.session)
        if received == upload.filesize:
            return self._finish(call, upload.session, upload.filesize, upload.sha)
        return {"session": upload.session, "offset": received, "slice_size": upload.slice_size}

    def _begin(self, call: Call, *, insert_only: bool) -> Upload | StoredObject:
        sha, filesize = read_sha(call.text("sha")), call.number("filesize", missing=-5971)
        intent = UploadRequest(
            filesize=filesize,
            slice_size=call.number("slice_size") if call.text("slice_size") else MIB,
            sha=sha,
            parts=(Part(filesize, sha),) if sha else (),  # this client announces no states
            insert_only=insert_only,
            biz_attr=call.text("biz_attr"),
        )
        return self._uploads.begin(call.target, intent, slice_size=call.slice_size, serial=True)

    def _receive(self, call: Call, session: str) -> Data:
        done = self._records.object_at(call.target.place, call.target.path)
        if done is not None and session and done.session == session:
            return self._finish(call, session, done.filesize, done.sha)
        upload = self._uploads.find(call.target, session)
        content = call.form.content
        if content is None:
            raise CosError(-5990)
        offset_bytes = call.number("offset", missing=-286)
        self._uploads.receive(upload, offset_bytes, content.whole())
        if self._records.received_bytes(session) == upload.filesize:
            return self._finish(call, session, upload.filesize, upload.sha)
        return {"session": session, "offset": offset_bytes, "datalen": content.size_bytes}

    def _finish(self, call: Call, session: str, filesize: int, sha: str) -> Data:
        self._uploads.finish(call.target, session, filesize=filesize, sha=sha)
        return addresses(call.target, call.host)
