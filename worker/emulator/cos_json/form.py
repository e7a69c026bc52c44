"""Receiving a request's parameters: a multipart form with at most one file, or a JSON object."""

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

    from worker.emulator.core.disk import Draft
    from worker.emulator.http.connection import HttpConnection, HttpRequest

#: A body up to this size is received into one buffer, whence a slice goes to disk without another copy.
STAGED_BYTES = 3 * MIB + 64 * KIB
_SMALL_BYTES = 64 * KIB
_WINDOW_BYTES = 256 * KIB
_MOST_FIELD_BYTES = 16 * MIB
#: Names that official clients spell in two ways.
_SPELLINGS = {"filecontent": "filecontent", "filesize": "filesize"}


@dataclass(slots=True)
class FormData:
    """What a request carried. Empty fields count as absent."""

    fields: dict[str, str] = field(default_factory=dict)
    content: Content | None = None


class Buffers:
    """Staging buffers that are used again and again, so that memory follows the uploads of one moment."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """A buffer of `STAGED_BYTES` with whatever it last held."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(STAGED_BYTES)

    def give(self, buffer: bytearray) -> None:
        """Takes a buffer back."""
        self._free.append(buffer)


class FormReader:
    """Receives one request's body.

    Use it as a context manager: what it received is valid until it is left.
    """

    def __init__(self, buffers: Buffers, new_draft: Callable[[], Draft], *, strict_boundary: bool) -> None:
        self._buffers = buffers
        self._new_draft = new_draft
        self._strict_boundary = strict_boundary
        self._staging: bytearray | None = None
        self._raw: dict[str, bytearray] = {}
        self._current: bytearray | None = None
        self._name = ""
        self._content_start = -1
        self._before: Content | None = None
        self.form = FormData()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for content in (self._before, self.form.content):
            if content is not None:
                content.discard()
        if self._staging is not None:
            self._buffers.give(self._staging)

    def read(
        self, connection: HttpConnection, request: HttpRequest, progress: Callable[[FormData, int], None]
    ) -> FormData:
        """Receives the body.

        Args:
            connection: Where the body comes from.
            request: Its head.
            progress: Called with what is known so far and the number of body bytes received, after each read.

        Raises:
            CosError: -5993 or -5999, not a form or not JSON.
            Disconnected: The peer went away before the body was whole.
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
        if length_bytes > _MOST_FIELD_BYTES:
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
        staged = length_bytes <= STAGED_BYTES
        if _SMALL_BYTES < length_bytes <= STAGED_BYTES:
            buffer = self._staging = self._buffers.take()
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
                self._take(event, view, staged=staged)
            progress(self.form, length_bytes - connection.body_left_bytes)
        if not parser.complete:
            raise MultipartError("the body ends before its closing delimiter")

    def _take(self, event: object, view: memoryview, *, staged: bool) -> None:
        if isinstance(event, PartBegins):
            self._begin(_SPELLINGS.get(event.name.lower(), event.name), staged=staged)
        elif isinstance(event, PartBytes):
            self._bytes(view, event.start, event.end)
        else:
            self._end()

    def _begin(self, name: str, *, staged: bool) -> None:
        if name != "filecontent":
            self._current = self._raw.setdefault(name, bytearray())
            self._current.clear()
            self.form.fields.pop(name, None)
            self._name = name
            return
        self._current = None
        self._before = self.form.content
        self.form.content = Content(draft=None if staged else self._new_draft())

    def _bytes(self, view: memoryview, start: int, end: int) -> None:
        content = self.form.content
        if self._current is not None:
            self._current += view[start:end]
            if len(self._current) > _MOST_FIELD_BYTES:
                raise MultipartError("a field is too long")
        elif content is not None and content.draft is not None:
            content.draft.append(view[start:end])
            content.size_bytes += end - start
        elif content is not None:
            # Nothing moves in a staging buffer: the ranges of one part lie side by side.
            self._content_start = start if not content.size_bytes else self._content_start
            content.size_bytes = end - self._content_start
            content.view = view[self._content_start : end]

    def _end(self) -> None:
        if self._current is None:
            self._compare()
            return
        try:
            text = self._current.decode()
        except UnicodeDecodeError:
            raise MultipartError(f"field {self._name!r} is not UTF-8") from None
        if text:
            self.form.fields[self._name] = text

    def _compare(self) -> None:
        """A client that tries a slice again may send its form twice in one: the same fields, the same bytes."""
        if self._before is None or self.form.content is None:
            return
        if self._before.sha1() != self.form.content.sha1():
            raise MultipartError("two parts are called filecontent, and their bytes differ")
        self._before.discard()
        self._before = None
