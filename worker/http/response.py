"""The head and the framing of an HTTP/1.1 answer, read strictly: what is unclear ends the connection, not the guess."""

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


class Source(Protocol):
    """Where an answer comes from."""

    received: bytearray
    """What has come and was not read yet."""

    def receive(self) -> bytes:
        """Return what has come, nothing at the end."""


@dataclass(slots=True)
class Answer:
    """The head of an answer, and how far its body was read.

    Attributes:
        ascii: the headers hold nothing else.
        length_bytes: of the body; None: it is chunked, or ends with the connection.
        chunked: the body is framed by chunks.
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

    def body(self, source: Source) -> Iterator[bytes]:
        """Yield the body as it comes.

        Raises:
            httpx.RemoteProtocolError: it ends before its end, or breaks the protocol.
        """
        if self.chunked:
            yield from _chunks(source)
        elif self.length_bytes is None:
            yield from _until_end(source)
        else:
            yield from _exactly(source, self.length_bytes)
        self.whole = True


def read_head(source: Source, method: str) -> Answer:
    """Read the head of the final answer to a request.

    Raises:
        httpx.RemoteProtocolError: it is not one.
    """
    while True:
        answer = _parse(_take_through(source, b"\r\n\r\n", "the head of the answer"), method)
        if answer.status == _SWITCHED:
            _refuse("the protocol was switched unasked")
        if answer.status >= _FIRST_FINAL:
            return answer


def _take_through(source: Source, end: bytes, what: str) -> bytes:
    """Return what comes before ``end``, which is taken, too."""
    received, looked = source.received, 0
    while (at := received.find(end, looked)) < 0 and len(received) <= HEAD_MAX_BYTES:
        looked = max(0, len(received) - len(end) + 1)
        if not (more := source.receive()):
            _refuse(f"the connection was closed within {what}" if received else "the connection was closed unanswered")
        received += more
    if not 0 <= at <= HEAD_MAX_BYTES:
        _refuse(f"{what} is longer than {HEAD_MAX_BYTES} bytes")
    taken = bytes(received[:at])
    del received[: at + len(end)]
    return taken


def _parse(head: bytes, method: str) -> Answer:
    first, end, rest = head.partition(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        _refuse(f"not a status line: {first[:80]!r}")
    rest = end + rest
    headers = _HEADER.findall(rest)
    if len(headers) != rest.count(b"\r\n"):  # each line is one, or is skipped
        odd = next(line for line in rest.split(b"\r\n")[1:] if not _HEADER.fullmatch(b"\r\n" + line))
        _refuse(f"not a header: {odd[:80]!r}")
    answer = Answer(int(status_line[2]), headers, ascii=rest.isascii())
    closes = _frame(answer, method)
    persistent = status_line[1] == b"1" and not closes
    answer.reusable = persistent and (answer.chunked or answer.length_bytes is not None)
    return answer


def _frame(answer: Answer, method: str) -> bool:
    """Find out how the body ends; say whether the connection does, too.

    Two lengths, or a length and a coding, could be read in two ways: refused.
    """
    said: dict[bytes, list[bytes]] = {name: [] for name in _FRAMING}
    for name, value in answer.headers:
        if (framing := said.get(name.lower())) is not None:
            framing += [word.strip() for word in value.lower().split(b",")]
    codings, lengths = said[b"transfer-encoding"], set(said[b"content-length"])
    if codings:
        if codings != [b"chunked"] or lengths:
            _refuse(
                "the framing of the answer is unclear: " + b", ".join([*codings, *sorted(lengths)]).decode("latin-1")
            )
        answer.chunked = True
    elif lengths:
        if len(lengths) > 1 or not _LENGTH.fullmatch(length := next(iter(lengths))):
            _refuse("the length of the answer is unclear: " + b", ".join(sorted(lengths)).decode("latin-1"))
        answer.length_bytes = int(length)
    if method == "HEAD" or answer.status in _NO_BODY or answer.status < _FIRST_FINAL:
        answer.chunked, answer.length_bytes = False, 0
    return b"close" in said[b"connection"]


def _exactly(source: Source, length_bytes: int) -> Iterator[bytes]:
    left = length_bytes
    while left > 0:
        if source.received:
            piece = bytes(source.received[:left])
            del source.received[:left]
        elif not (piece := source.receive()):
            _refuse(f"the connection was closed {left} bytes before the end of the answer")
        elif len(piece) > left:
            source.received += piece[left:]
            piece = piece[:left]
        left -= len(piece)
        yield piece


def _until_end(source: Source) -> Iterator[bytes]:
    piece = bytes(source.received)
    source.received.clear()
    while piece or (piece := source.receive()):
        yield piece
        piece = b""


def _chunks(source: Source) -> Iterator[bytes]:
    while True:
        size_line = _CHUNK.fullmatch(line := _take_through(source, b"\r\n", "the size of a chunk"))
        if size_line is None:
            _refuse(f"not the size of a chunk: {line[:80]!r}")
        size_bytes = int(size_line[1], 16)
        if size_bytes == 0:
            break
        yield from _exactly(source, size_bytes)
        if _take_through(source, b"\r\n", "a chunk"):
            _refuse("a chunk is longer than it says")
    while _take_through(source, b"\r\n", "the trailers"):
        pass


def _refuse(why: str) -> NoReturn:
    raise httpx.RemoteProtocolError(why)
