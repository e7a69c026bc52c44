"""HTTP/1.1 by hand over a socket: whatever a client may send, in whatever pieces, and what comes back."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tests.support.deadline import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        assert self.fields["content-type"] == "application/problem+json", self.fields
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


class HttpTransport:
    """A connection to a server, by port or by the path of its socket."""

    def __init__(self, place: int | str) -> None:
        family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(place if isinstance(place, str) else ("127.0.0.1", place))
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> Self:
        self._socket.sendall(data)
        return self

    def request(self, method: str, path: str, *fields: str, body: bytes = b"") -> Self:
        """Send a request; ``fields`` are lines of its head."""
        lines = [f"{method} {path} HTTP/1.1", "Host: api", *fields, "", ""]
        return self.send("\r\n".join(lines).encode() + body)

    def reply(self) -> Reply:
        """Read one answer, which has a Content-Length."""
        head, _, self._read = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(fields.get("content-length", 0))
        while len(self._read) < size:
            self._more()
        body, self._read = self._read[:size], self._read[size:]
        return Reply(int(first.split()[1]), fields, body)

    def end(self) -> bytes:
        """Read until the server closes the connection; a reset fails."""
        while piece := self._socket.recv(65536):
            self._read += piece
        return self._read

    def is_cut(self) -> bool:
        """Say, when the connection has ended, whether nothing came on it."""
        try:
            return self.end() == b""
        except ConnectionResetError:
            return self._read == b""

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            self._more()
        return self._read

    def _more(self) -> None:
        piece = self._socket.recv(65536)
        assert piece, f"the connection ended behind {self._read[-200:]!r}"
        self._read += piece
