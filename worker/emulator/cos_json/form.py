"""The parameters of a request: a multipart form with at most one file, or a JSON object."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from worker.emulator.config import KIB, MIB
from worker.emulator.core.content import Content
from worker.emulator.cos_json.errors import CosError
from worker.emulator.http.multipart import MultipartError, MultipartParser, PartBegins, PartBytes, boundary_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.emulator.core.disk import TempFile
    from worker.emulator.http.connection import HttpConnection, HttpRequest

#: A body up to this size is received into one buffer, from which a slice is written to disk without a copy.
STAGING_BYTES = 3 * MIB + 64 * KIB
_SMALL_BYTES = 64 * KIB
_WINDOW_BYTES = 256 * KIB
_MAX_FIELD_BYTES = 16 * MIB
#: Fields that official clients write in different case.
_ANY_CASE = frozenset({"filecontent", "filesize"})


@dataclass(slots=True)
class FormData:
    """The fields and the file of a request. An empty field counts as absent."""

    fields: dict[str, str] = field(default_factory=dict)
    content: Content | None = None


class BufferPool:
    """Staging buffers for reuse: memory follows the number of concurrent uploads."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()

    def acquire(self) -> bytearray:
        """A buffer of `STAGING_BYTES`; its content is undefined."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(STAGING_BYTES)

    def release(self, buffer: bytearray) -> None:
        """Returns a buffer to the pool."""
        self._free.append(buffer)


class FormReader:
    """Receives one request's body.

    Use it as a context manager: the form is valid until its block ends.
    """

    def __init__(self, buffers: BufferPool, new_temp_file: Callable[[], TempFile], *, strict_boundary: bool) -> None:
        self._buffers = buffers
        self._new_temp_file = new_temp_file
        self._strict_boundary = strict_boundary
        self._staging: bytearray | None = None
        self._current_field: bytearray | None = None
        self._name = ""
        self._content_start = -1
        self._previous_content: Content | None = None
        self.form = FormData()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for content in (self._previous_content, self.form.content):
            if content is not None:
                content.discard()
        if self._staging is not None:
            self._buffers.release(self._staging)

    def read(
        self, connection: HttpConnection, request: HttpRequest, progress: Callable[[FormData, int], None]
    ) -> FormData:
        """Receives the body.

        Args:
            connection: The connection that has the body.
            request: The head of the request.
            progress: Called after each read with the form so far and the number of body bytes received.

        Raises:
            CosError: -5993 not a form, -5999 not JSON.
            Disconnected: The connection ended before the body was complete.
        """
        content_type = request.headers.get("content-type", "")
        try:
            boundary = boundary_of(content_type, strict=self._strict_boundary)
            if boundary is None:
                self._read_json(connection, request.content_length)
            else:
                self._read_multipart(connection, request.content_length, MultipartParser(boundary), progress)
        except MultipartError as error:
            raise CosError(-5993, str(error)) from None
        return self.form

    def _read_json(self, connection: HttpConnection, length_bytes: int) -> None:
        if length_bytes > _MAX_FIELD_BYTES:
            raise CosError(-5999, "the JSON body is too long")
        try:
            given = json.loads(connection.read_body() or b"{}")
        except ValueError:
            raise CosError(-5999, "the body is neither multipart/form-data nor JSON") from None
        if not isinstance(given, dict):
            raise CosError(-5999, "the JSON body is not an object")
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
        self.form.fields = {name: text for name, text in texts.items() if text}

    def _read_multipart(
        self,
        connection: HttpConnection,
        length_bytes: int,
        parser: MultipartParser,
        progress: Callable[[FormData, int], None],
    ) -> None:
        staged = length_bytes <= STAGING_BYTES
        if _SMALL_BYTES < length_bytes <= STAGING_BYTES:
            buffer = self._staging = self._buffers.acquire()
        else:
            buffer = bytearray(length_bytes if staged else _WINDOW_BYTES)
        view = memoryview(buffer)
        position = end = 0
        while connection.body_left_bytes:
            if not staged:
                buffer[: end - position] = buffer[position:end]
                position, end = 0, end - position
            end += connection.read_into(view[end:])
            position, events = parser.feed(buffer, position, end)
            for event in events:
                self._on_event(event, view, staged=staged)
            progress(self.form, length_bytes - connection.body_left_bytes)
        if not parser.complete:
            raise MultipartError("the body ends before its closing delimiter")

    def _on_event(self, event: object, view: memoryview, *, staged: bool) -> None:
        if isinstance(event, PartBegins):
            lower = event.name.lower()
            self._begin_part(lower if lower in _ANY_CASE else event.name, staged=staged)
        elif isinstance(event, PartBytes):
            self._append_bytes(view, event.start, event.end)
        else:
            self._end_part()

    def _begin_part(self, name: str, *, staged: bool) -> None:
        if name != "filecontent":
            self._current_field = bytearray()
            self.form.fields.pop(name, None)
            self._name = name
            return
        self._current_field = None
        self._previous_content = self.form.content
        self.form.content = Content(temp_file=None if staged else self._new_temp_file())

    def _append_bytes(self, view: memoryview, start: int, end: int) -> None:
        content = self.form.content
        if self._current_field is not None:
            self._current_field += view[start:end]
            if len(self._current_field) > _MAX_FIELD_BYTES:
                raise MultipartError("a field is too long")
        elif content is not None and content.temp_file is not None:
            content.temp_file.append(view[start:end])
            content.size_bytes += end - start
        elif content is not None:
            # Bytes do not move in a staging buffer: the ranges of one part are adjacent.
            self._content_start = start if not content.size_bytes else self._content_start
            content.size_bytes = end - self._content_start
            content.view = view[self._content_start : end]

    def _end_part(self) -> None:
        if self._current_field is None:
            self._compare_repeated()
            return
        try:
            text = self._current_field.decode()
        except UnicodeDecodeError:
            raise MultipartError(f"field {self._name!r} is not UTF-8") from None
        if text:
            self.form.fields[self._name] = text

    def _compare_repeated(self) -> None:
        """A client that retries a slice may repeat its form in one body: the same fields, the same bytes."""
        if self._previous_content is None or self.form.content is None:
            return
        if self._previous_content.sha1() != self.form.content.sha1():
            raise MultipartError("two parts are called filecontent, and their bytes differ")
        self._previous_content.discard()
        self._previous_content = None
