"""An incremental parser of multipart/form-data that copies no bytes of a part.

The parser works on ranges of the caller's buffer and returns, for each part, the ranges of its body. It leaves bytes
unconsumed in which a delimiter may begin; the caller presents them with the bytes that follow.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

_MAX_HEADER_BYTES = 16 * 1024
_MAX_BOUNDARY_CHARS = 200
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')


class MultipartError(ValueError):
    """The body is not multipart/form-data."""


@dataclass(frozen=True, slots=True)
class PartBegins:
    """The headers of a part are complete."""

    name: str


@dataclass(frozen=True, slots=True)
class PartBytes:
    """buffer[start:end] belongs to the body of the current part."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The current part is complete."""


Event = PartBegins | PartBytes | PartEnds


def boundary_of(content_type: str, *, strict: bool = False) -> bytes | None:
    """The boundary in a Content-Type, or None if it is not multipart/form-data.

    Args:
        content_type: The header's value.
        strict: Refuse a quoted boundary, as the real service does.

    Raises:
        MultipartError: The boundary is missing or invalid.
    """
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    parameters = {name.lower(): value.strip() for name, value in _PARAMETER.findall(content_type)}
    boundary: str = parameters.get("boundary", "")
    if boundary.startswith('"'):
        if strict:
            raise MultipartError("the boundary is quoted")
        boundary = _unquoted(boundary)
    if not boundary or len(boundary) > _MAX_BOUNDARY_CHARS or not boundary.isascii():
        raise MultipartError("the boundary is missing or invalid")
    return boundary.encode()


class _State(enum.Enum):
    START = enum.auto()
    PREAMBLE = enum.auto()
    DELIMITED = enum.auto()
    HEADERS = enum.auto()
    BODY = enum.auto()
    EPILOGUE = enum.auto()


class MultipartParser:
    """Parses one body, in pieces of any size."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._state = _State.START

    @property
    def complete(self) -> bool:
        """Whether the closing delimiter was parsed."""
        return self._state is _State.EPILOGUE

    def feed(self, buffer: bytearray, start: int, end: int) -> tuple[int, list[Event]]:
        """Parses buffer[start:end] and returns the end of the consumed bytes, and the events.

        Raises:
            MultipartError: The bytes are not a form.
        """
        events: list[Event] = []
        position = start
        while True:
            state = self._state
            position = self._step(buffer, position, end, events)
            if self._state is state:
                return position, events

    def _step(self, buffer: bytearray, start: int, end: int, events: list[Event]) -> int:
        match self._state:
            case _State.START:
                return self._first_delimiter(buffer, start, end)
            case _State.PREAMBLE:
                return self._until_delimiter(buffer, start, end, None)
            case _State.DELIMITED:
                return self._after_delimiter(buffer, start, end)
            case _State.HEADERS:
                return self._headers(buffer, start, end, events)
            case _State.BODY:
                return self._until_delimiter(buffer, start, end, events)
            case _State.EPILOGUE:
                return end

    def _first_delimiter(self, buffer: bytearray, start: int, end: int) -> int:
        dashed = self._delimiter[2:]
        if end - start < len(dashed):
            return start
        if buffer.startswith(dashed, start, end):
            self._state = _State.DELIMITED
            return start + len(dashed)
        self._state = _State.PREAMBLE
        return start

    def _until_delimiter(self, buffer: bytearray, start: int, end: int, events: list[Event] | None) -> int:
        found = buffer.find(self._delimiter, start, end)
        stop = found if found >= 0 else max(start, end - len(self._delimiter) + 1)
        if events is not None and stop > start:
            events.append(PartBytes(start, stop))
        if found < 0:
            return stop
        if events is not None:
            events.append(PartEnds())
        self._state = _State.DELIMITED
        return found + len(self._delimiter)

    def _after_delimiter(self, buffer: bytearray, start: int, end: int) -> int:
        if buffer.startswith(b"--", start, end):
            self._state = _State.EPILOGUE
            return start + 2
        line_end = buffer.find(b"\r\n", start, end)
        if line_end < 0:
            if end - start > _MAX_HEADER_BYTES:
                raise MultipartError("no line end after a delimiter")
            return start
        if buffer[start:line_end].strip(b" \t"):
            raise MultipartError("a delimiter is not followed by a line end")
        self._state = _State.HEADERS
        return line_end + 2

    def _headers(self, buffer: bytearray, start: int, end: int, events: list[Event]) -> int:
        headers_end = buffer.find(b"\r\n\r\n", start, end)
        if headers_end < 0:
            if end - start > _MAX_HEADER_BYTES:
                raise MultipartError("the headers of a part are too long")
            return start
        events.append(PartBegins(_name_of(bytes(buffer[start:headers_end]))))
        self._state = _State.BODY
        return headers_end + 4


def _name_of(headers: bytes) -> str:
    for line in headers.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            names = [given for name, given in _PARAMETER.findall(value) if name.lower() == "name"]
            if names and (name := _unquoted(names[0].strip())):
                return name
    raise MultipartError("a part has no name")


def _unquoted(value: str) -> str:
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
