"""Download of an object by a plain GET or HEAD, whole or one range."""

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
    """The response with the object's bytes. The caller closes its file.

    Raises:
        StorageError: There is no object, or only an unfinished upload.
    """
    stored, file = objects.open(target)
    response = HttpResponse(
        200,
        content_type="application/octet-stream",
        headers={"Accept-Ranges": "bytes", "Last-Modified": formatdate(stored.modified_s, usegmt=True)},
        file=file,
        file_bytes=stored.filesize,
    )
    requested = _RANGE.fullmatch(request.headers.get("range", ""))
    if requested is None or not any(requested.groups()):
        return response
    start, stop = _bounds(*requested.groups(), size_bytes=stored.filesize)
    if start >= stop:
        response.status, response.file_bytes = 416, 0
        response.headers["Content-Range"] = f"bytes */{stored.filesize}"
    else:
        response.status, response.file_offset, response.file_bytes = 206, start, stop - start
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.filesize}"
    return response


def _bounds(first: str, last: str, *, size_bytes: int) -> tuple[int, int]:
    if not first:
        return max(0, size_bytes - int(last)), size_bytes
    return int(first), min(size_bytes, int(last) + 1) if last else size_bytes
