"""Reading an object back: a plain GET or HEAD, whole or one range."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING

from worker.emulator.http.connection import HttpResponse

if TYPE_CHECKING:
    from worker.emulator.core.objects import Objects
    from worker.emulator.core.targets import Target
    from worker.emulator.http.connection import HttpRequest

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


def download(objects: Objects, target: Target, request: HttpRequest) -> HttpResponse:
    """The answer that sends the object's bytes; its file is the caller's to close.

    Raises:
        StorageError: there is none, or it is not complete.
    """
    stored, file = objects.open(target)
    answer = HttpResponse(
        200,
        content_type="application/octet-stream",
        headers={"Accept-Ranges": "bytes", "Last-Modified": formatdate(stored.modified_s, usegmt=True)},
        file=file,
        file_bytes=stored.filesize,
    )
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or not any(asked.groups()):
        return answer
    start, stop = _bounds(*asked.groups(), size_bytes=stored.filesize)
    if start >= stop:
        answer.status, answer.file_bytes = 416, 0
        answer.headers["Content-Range"] = f"bytes */{stored.filesize}"
    else:
        answer.status, answer.file_offset, answer.file_bytes = 206, start, stop - start
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.filesize}"
    return answer


def _bounds(first: str, last: str, *, size_bytes: int) -> tuple[int, int]:
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    return int(first), min(size_bytes, int(last) + 1) if last else size_bytes
