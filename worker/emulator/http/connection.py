"""HTTP/1.1 on one connection: request heads, request bodies as a stream, responses."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import responses
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from io import FileIO

    from worker.emulator.http.throttle import Throttle

_HEAD_BYTES = 64 * 1024
_THROTTLED_READ_BYTES = 64 * 1024
#: Unread bytes of a refused request that are read and dropped, so that the client can read the response.
_LINGER_BYTES = 256 * 1024 * 1024
_LINGER_S = 10.0


class Disconnected(Exception):
    """The peer closed the connection, or stalled for longer than the timeout."""


class MalformedRequest(Exception):
    """The head is not a valid request: respond with `status` and close."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The head of a request."""

    method: str
    #: The path as sent, still percent-encoded.
    path: str
    query: dict[str, str]
    #: Names in lower case.
    headers: dict[str, str]
    content_length: int
    keep_alive: bool


@dataclass(slots=True)
class HttpResponse:
    """A response whose body is bytes, or a range of a file."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    file: FileIO | None = None
    file_offset: int = 0
    file_bytes: int = 0
    #: The response to a HEAD: Content-Length is that of the body, the body is not sent.
    bodiless: bool = False

    def head(self, *, now_s: float, keep_alive: bool) -> bytes:
        """The status line and headers."""
        phrase = responses.get(self.status, "Unknown")
        length = self.file_bytes if self.file is not None else len(self.body)
        headers = {
            "Server": "tencent-cos",
            "Date": formatdate(now_s, usegmt=True),
            "Content-Type": self.content_type,
            "Content-Length": str(length),
            "Connection": "keep-alive" if keep_alive else "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class HttpConnection:
    """One client connection: reads heads and bodies, sends responses, buffers pipelined requests."""

    def __init__(
        self,
        sock: socket.socket,
        throttle: Throttle | None = None,
        *,
        idle_timeout_s: float,
        stall_timeout_s: float,
    ) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._throttle = throttle
        self._idle_timeout_s = idle_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._buffer = bytearray(_HEAD_BYTES)
        self._start = 0
        self._end = 0
        self._body_left = 0
        self._continue_due = False

    @property
    def body_left_bytes(self) -> int:
        """Unread bytes of the current request's body."""
        return self._body_left

    def next_request(self) -> HttpRequest | None:
        """The head of the next request, or None when the peer has closed the connection or sends no request in time.

        Raises:
            Disconnected: The connection ended within a head.
            MalformedRequest: The head is not HTTP/1.x with a Content-Length.
        """
        self._sock.settimeout(self._idle_timeout_s)
        while (stop := self._buffer.find(b"\r\n\r\n", self._start, self._end)) < 0:
            if self._end - self._start == _HEAD_BYTES:
                raise MalformedRequest(431, "the request head is too long")
            if not self._fill():
                if self._end == self._start:
                    return None
                raise Disconnected("within a request head")
        head = self._buffer[self._start : stop].decode("latin-1")
        self._start = stop + 4
        request = _parse_head(head.lstrip("\r\n"))
        self._body_left = request.content_length
        self._continue_due = request.headers.get("expect", "").lower() == "100-continue"
        self._sock.settimeout(self._stall_timeout_s)
        return request

    def _fill(self) -> int:
        if self._start:
            left = self._end - self._start
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
        with memoryview(self._buffer) as view:
            try:
                received = self._sock.recv_into(view[self._end :])
            except OSError:
                received = 0
        self._end += received
        return received

    def read_into(self, view: memoryview) -> int:
        """Reads a piece of the body into `view` and returns its size; 0 only at the end of the body.

        Raises:
            Disconnected: The connection ended before the body was complete.
        """
        wanted = min(len(view), self._body_left)
        if not wanted:
            return 0
        if self._continue_due:
            self._continue_due = False
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        buffered = min(wanted, self._end - self._start)
        if buffered:
            view[:buffered] = self._buffer[self._start : self._start + buffered]
            self._start += buffered
            received = buffered
        else:
            limited = self._throttle is not None and self._throttle.limited
            received = self._receive(view[: min(wanted, _THROTTLED_READ_BYTES) if limited else wanted])
        self._body_left -= received
        if self._throttle is not None:
            self._throttle.spend(received)
        return received

    def _receive(self, view: memoryview) -> int:
        try:
            received = self._sock.recv_into(view)
        except OSError as error:
            raise Disconnected(str(error)) from error
        if not received:
            raise Disconnected("within a request body")
        return received

    def read_body(self) -> bytes:
        """The rest of the current body.

        Raises:
            Disconnected: The connection ended before the body was complete.
        """
        body = bytearray(self._body_left)
        received = 0
        with memoryview(body) as view:
            while received < len(body):
                received += self.read_into(view[received:])
        return bytes(body)

    def skip_body(self) -> None:
        """Reads and drops the rest of the current body."""
        with memoryview(bytearray(_THROTTLED_READ_BYTES)) as view:
            while self.read_into(view):
                pass

    def send(self, data: bytes) -> None:
        """Sends all bytes.

        Raises:
            Disconnected: The connection ended.
        """
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Disconnected(str(error)) from error

    def send_file(self, file: FileIO, offset_bytes: int, size_bytes: int) -> None:
        """Sends a range of a file without reading it into this process.

        Raises:
            Disconnected: The connection ended.
        """
        try:
            self._sock.sendfile(file, offset_bytes, size_bytes)
        except OSError as error:
            raise Disconnected(str(error)) from error

    def linger(self) -> None:
        """Lingering close: drops what the peer still sends; a close at once could destroy the response in flight."""
        left = _LINGER_BYTES
        try:
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(_LINGER_S)
            with memoryview(bytearray(_HEAD_BYTES)) as view:
                while left > 0 and (received := self._sock.recv_into(view)):
                    left -= received
        except OSError:
            return

    def shut_down(self) -> None:
        """Shuts the socket down, from any thread: the thread that is blocked in it wakes up and closes it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection."""
        self.shut_down()
        self._sock.close()


def _parse_head(head: str) -> HttpRequest:
    request_line, *header_lines = head.split("\r\n")
    try:
        method, target, version = request_line.split(" ")
    except ValueError:
        raise MalformedRequest(400, "not an HTTP request line") from None
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise MalformedRequest(505, "only HTTP/1.x is supported")
    headers: dict[str, str] = {}
    for line in header_lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise MalformedRequest(400, "a header line without a name")
        headers[name.lower()] = value.strip()
    if version == "HTTP/1.1" and "host" not in headers:
        raise MalformedRequest(400, "HTTP/1.1 needs a Host header")
    if "transfer-encoding" in headers:
        raise MalformedRequest(411, "a body needs a Content-Length")
    length = headers.get("content-length", "0")
    if re.fullmatch("[0-9]{1,19}", length) is None:
        raise MalformedRequest(400, "Content-Length is not a number")
    path, _, query = target.partition("?")
    if path.startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[3] if path.count("/") >= 3 else "/"  # noqa: PLR2004 - scheme://host/path
    option = headers.get("connection", "").lower()
    keep_alive = "close" not in option if version == "HTTP/1.1" else "keep-alive" in option
    values = parse_qs(query, keep_blank_values=True)
    return HttpRequest(method, path, {name: each[0] for name, each in values.items()}, headers, int(length), keep_alive)
