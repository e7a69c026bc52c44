"""Head and framing of an HTTP/1.1 response, read strictly: an ambiguous response is a protocol error."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, Protocol

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_MAX_BYTES = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?")
_HEADER = re.compile(rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[^\r\n\0]*[^\r\n\0 \t])?)[ \t]*(?=\r\n|\Z)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_FRAMING = (b"transfer-encoding", b"content-length", b"connection")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_NO_BODY = frozenset({204, 304})
_FIRST_FINAL = 200
_SWITCHED = 101


class Receiver(Protocol):
    """The receiving side of a connection."""

    received: bytearray
    """Received bytes that are not read yet."""

    def receive(self) -> bytes:
        """Return the bytes that have come, or no bytes at the end of the stream."""


@dataclass(slots=True)
class ResponseHead:
    """The head of a response, and whether its body was read.

    Attributes:
        ascii: the headers are all ASCII.
        length_bytes: of the body; None if it is chunked or ends with the connection.
        chunked: the body comes in chunks.
        reusable: the connection may be used again after the whole body.
        whole: the body was read to its end.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    ascii: bool
    length_bytes: int | None = None
    chunked: bool = False
    reusable: bool = True
    whole: bool = field(default=False, init=False)

    def body(self, receiver: Receiver) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            httpx.RemoteProtocolError: the body is cut off or breaks the protocol.
        """
        if self.chunked:
            yield from _chunks(receiver)
        elif self.length_bytes is None:
            yield from _until_end(receiver)
        else:
            yield from _exactly(receiver, self.length_bytes)
        self.whole = True


def read_head(receiver: Receiver, method: str) -> ResponseHead:
    """Read the head of the final response to a request; skip interim responses.

    Raises:
        httpx.RemoteProtocolError: it is no valid head.
    """
    while True:
        head = _parse(_take_through(receiver, b"\r\n\r\n", "the head of the response"), method)
        if head.status == _SWITCHED:
            _refuse("the protocol was switched without a request for it")
        if head.status >= _FIRST_FINAL:
            return head


def _take_through(receiver: Receiver, end: bytes, what: str) -> bytes:
    """Take the bytes up to and with ``end``; return them without it. ``what`` names them in an error."""
    received, searched = receiver.received, 0
    while (at := received.find(end, searched)) < 0 and len(received) <= HEAD_MAX_BYTES:
        searched = max(0, len(received) - len(end) + 1)
        if not (more := receiver.receive()):
            _refuse(f"the connection was closed within {what}" if received else "the connection was closed unanswered")
        received += more
    if not 0 <= at <= HEAD_MAX_BYTES:
        _refuse(f"{what} is longer than {HEAD_MAX_BYTES} bytes")
    taken = bytes(received[:at])
    del received[: at + len(end)]
    return taken


def _parse(text: bytes, method: str) -> ResponseHead:
    first, end, rest = text.partition(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        _refuse(f"not a status line: {first[:80]!r}")
    rest = end + rest
    headers = _HEADER.findall(rest)
    if len(headers) != rest.count(b"\r\n"):  # the pattern skips an invalid line
        invalid = next(line for line in rest.split(b"\r\n")[1:] if not _HEADER.fullmatch(b"\r\n" + line))
        _refuse(f"not a header: {invalid[:80]!r}")
    head = ResponseHead(int(status_line[2]), headers, ascii=rest.isascii())
    closes = _frame(head, method)
    persistent = status_line[1] == b"1" and not closes
    head.reusable = persistent and (head.chunked or head.length_bytes is not None)
    return head


def _frame(head: ResponseHead, method: str) -> bool:
    """Set how the body ends; return whether the connection closes after it.

    Two lengths, or a length and a coding, are ambiguous and refused.
    """
    values: dict[bytes, list[bytes]] = {name: [] for name in _FRAMING}
    for name, value in head.headers:
        if (framing := values.get(name.lower())) is not None:
            framing += [part.strip() for part in value.lower().split(b",")]
    codings, lengths = values[b"transfer-encoding"], set(values[b"content-length"])
    if codings:
        if codings != [b"chunked"] or lengths:
            both = b", ".join([*codings, *sorted(lengths)]).decode("latin-1")
            _refuse(f"the framing of the response is ambiguous: {both}")
        head.chunked = True
    elif lengths:
        if len(lengths) > 1 or not _LENGTH.fullmatch(length := next(iter(lengths))):
            _refuse("the length of the response is ambiguous: " + b", ".join(sorted(lengths)).decode("latin-1"))
        head.length_bytes = int(length)
    if method == "HEAD" or head.status in _NO_BODY or head.status < _FIRST_FINAL:
        head.chunked, head.length_bytes = False, 0
    return b"close" in values[b"connection"]


def _exactly(receiver: Receiver, length_bytes: int) -> Iterator[bytes]:
    left = length_bytes
    while left > 0:
        if receiver.received:
            piece = bytes(receiver.received[:left])
            del receiver.received[:left]
        elif not (piece := receiver.receive()):
            _refuse(f"the connection was closed {left} bytes before the end of the response")
        elif len(piece) > left:
            receiver.received += piece[left:]
            piece = piece[:left]
        left -= len(piece)
        yield piece


def _until_end(receiver: Receiver) -> Iterator[bytes]:
    piece = bytes(receiver.received)
    receiver.received.clear()
    while piece or (piece := receiver.receive()):
        yield piece
        piece = b""


def _chunks(receiver: Receiver) -> Iterator[bytes]:
    while True:
        size_line = _CHUNK.fullmatch(line := _take_through(receiver, b"\r\n", "the size of a chunk"))
        if size_line is None:
            _refuse(f"not the size of a chunk: {line[:80]!r}")
        size_bytes = int(size_line[1], 16)
        if size_bytes == 0:
            break
        yield from _exactly(receiver, size_bytes)
        if _take_through(receiver, b"\r\n", "a chunk"):
            _refuse("a chunk is longer than its size")
    while _take_through(receiver, b"\r\n", "the trailers"):
        pass


def _refuse(reason: str) -> NoReturn:
    raise httpx.RemoteProtocolError(reason)
