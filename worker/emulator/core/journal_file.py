"""The journal file: every request and every change of an object or session, one JSON object a line, never rotated.

Each line is one write in append mode, after the effect and before the response: SIGKILL of the emulator loses no line
whose response was sent. The file is not synced, so a failure of the machine may lose lines. SIGKILL may fall between an
effect and its line; at the next start the `held` lines have the slices of all unfinished uploads.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from worker.emulator.core.journal import JournalEntry
    from worker.emulator.core.records import Records, StoredObject, Upload

_OF_REQUEST = ("method", "bucket", "path", "op", "session", "offset", "size", "sha1", "status", "code", "effect")


class JournalFile:
    """Appends lines to a file.

    Args:
        file: None for no journal file; then nothing is written.

    Raises:
        OSError: The file cannot be appended to.
    """

    def __init__(self, file: Path | None) -> None:
        self.on = file is not None
        self._fd = -1 if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def request(self, entry: JournalEntry) -> None:
        """A request as far as it was received, its `effect`, the `status` and `code` of the response."""
        if not self.on:
            return
        fields = {name: value for name in _OF_REQUEST if (value := getattr(entry, name)) not in (None, "")}
        began = time.time() - (time.monotonic() - entry.began_s)
        self._append({"what": "request", "began": began, **fields, "faults": entry.faults})

    def opened(self, upload: Upload) -> None:
        """A session began."""
        self._append({"what": "opened", **_upload(upload), "mark": upload.biz_attr, "slice_size": upload.slice_size})

    def ended(self, upload: Upload, how: str) -> None:
        """A session ended without an object: `expired`, `lost` (by a fault), `aborted` or `refused` (wrong digest)."""
        self._append({"what": how, **_upload(upload)})

    def published(self, stored: StoredObject, how: str, old: StoredObject | None, sha1: str = "") -> None:
        """An object was published by `finish`, `whole` or `copy` (instant upload); `old` is the replaced object."""
        if old is not None:
            self._append({"what": "replaced", **_object(old)})
        self._append({"what": "published", "how": how, **_object(stored), "sha1": sha1 or stored.sha})

    def deleted(self, stored: StoredObject) -> None:
        """An object was deleted."""
        self._append({"what": "deleted", **_object(stored)})

    def held(self, records: Records) -> None:
        """The received slices of all unfinished uploads; written once, at the start."""
        for upload in records.all_uploads() if self.on else ():
            self._append({"what": "held", **_upload(upload), "slices": records.slices(upload.session)})

    def close(self) -> None:
        """Closes the file."""
        if self.on:
            self.on = False
            os.close(self._fd)

    def _append(self, line: dict[str, Any]) -> None:
        if self.on:
            os.write(self._fd, json.dumps({"at": time.time(), **line}, separators=(",", ":")).encode() + b"\n")


def _upload(upload: Upload) -> dict[str, Any]:
    return {"bucket": _bucket(upload.bucket), "path": upload.path, "session": upload.session, "size": upload.filesize}


def _object(stored: StoredObject) -> dict[str, Any]:
    named = {"bucket": _bucket(stored.bucket), "path": stored.path, "session": stored.session}
    return {**named, "size": stored.filesize, "mark": stored.biz_attr}


def _bucket(bucket_id: str) -> str:
    return bucket_id.rpartition("/")[2]
