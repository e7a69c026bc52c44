"""Which responses are read, and which are refused as invalid or ambiguous."""

from __future__ import annotations

import httpx
import pytest

from worker.http.response import HEAD_MAX_BYTES, read_head


class ScriptedReceiver:
    """A receiver that returns the given pieces, then the end of the stream."""

    def __init__(self, *pieces: bytes) -> None:
        self.received = bytearray()
        self._pieces = list(pieces)

    def receive(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def byte_by_byte(text: bytes) -> ScriptedReceiver:
    return ScriptedReceiver(*(text[at : at + 1] for at in range(len(text))))


def read(receiver: ScriptedReceiver, method: str = "POST") -> tuple[int, bytes, bool]:
    head = read_head(receiver, method)
    body = b"".join(head.body(receiver))
    assert head.whole
    return head.status, body, head.reusable


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("cut", [ScriptedReceiver, byte_by_byte], ids=["at_once", "byte_by_byte"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", (200, b"abc", True)),
        (OK + b"content-length:3\t\r\n\r\nabc", (200, b"abc", True)),
        (OK + b"Content-Length: 3, 3\r\n\r\nabc", (200, b"abc", True)),
        (OK + b"Content-Length: 0\r\n\r\n", (200, b"", True)),
        (OK + b"Content-Length: 3\r\nConnection: Keep-Alive, Close\r\n\r\nabc", (200, b"abc", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc", False)),
        (OK + b"\r\nto the end", (200, b"to the end", False)),
        (OK + b"\r\n", (200, b"", False)),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1 ;x=y\r\nc\r\n0\r\n\r\n", (200, b"abc", True)),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", (200, b"", True)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 631\r\nContent-Length: 1\r\n\r\nx", (631, b"x", True)),
    ],
)
def test_a_response_is_read_to_its_end(
    cut: type[ScriptedReceiver], text: bytes, expected: tuple[int, bytes, bool]
) -> None:
    assert read(cut(text)) == expected


def test_bytes_after_a_response_stay_in_the_buffer() -> None:
    receiver = ScriptedReceiver(OK + b"Content-Length: 1\r\n\r\nabc")
    assert read(receiver)[1] == b"a"
    assert receiver.received == b"bc"


def test_a_response_to_head_has_no_body() -> None:
    assert read(ScriptedReceiver(OK + b"Content-Length: 3\r\n\r\n"), "HEAD") == (200, b"", True)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"Content-Length : 3\r\n\r\nabc",
        OK + b"Folded: a\r\n b\r\n\r\n",
        OK + b"Nul: a\0b\r\n\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        OK + b"Content-Length: +3\r\n\r\nabc",
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"X: " + b"x" * HEAD_MAX_BYTES + b"\r\n\r\n",
        OK + b"Content-Length: 4\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
    ],
)
def test_a_truncated_or_ambiguous_response_is_refused(text: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        read(ScriptedReceiver(*(text[at : at + 4096] for at in range(0, len(text), 4096))))
