"""Servers that repeat what they were sent in every part of an answer, as a hostile or verbose server does."""

from __future__ import annotations

import base64
import json
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE_CHARS = 24
_AUTHORIZATION = ("authorization", "proxy-authorization")


class EchoServer:
    """Answers each request by showing it; the ways to show it take turns."""

    def __init__(self, ways: tuple[Callable[[str, list[str]], bytes], ...]) -> None:
        self.credentials: set[str] = set()
        """What Authorization headers have held."""
        self._ways = ways
        self._turn = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                head += more
            lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            fields = (line.partition(": ") for line in lines[1:])
            given = [value for name, _, value in fields if name.lower() in _AUTHORIZATION]
            self.credentials.update(given)
            way, self._turn = self._ways[self._turn % len(self._ways)], self._turn + 1
            connection.sendall(way(" ".join(lines), list(_forms(given))))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # what is still sent; closed before, the answer would be lost to a reset
                pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)


def _forms(given: list[str]) -> Iterator[str]:
    """Yield each value whole, encoded, decoded, and cut into pieces."""
    for value in given:
        yield from (value, quote(value, safe=""), base64.b64encode(value.encode()).decode())
        with suppress(ValueError):
            plain = base64.b64decode(value.removeprefix("Basic ")).decode("latin-1")
            if plain.isprintable():
                yield from (plain, quote(plain, safe=""))
        yield " ".join(value[at : at + PIECE_CHARS] for at in range(0, len(value), PIECE_CHARS))


def in_the_reason(whole: str, values: list[str]) -> bytes:
    """A 407 whose status line says it."""
    return f"HTTP/1.1 407 {' '.join(values)} {whole}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()


def in_headers_and_body(whole: str, values: list[str]) -> bytes:
    """A 407 whose headers and body say it."""
    headers = "".join(f"X-Said: {each}\r\n" for each in [*values, whole])
    body = " ".join([*reversed(values), whole])[:900]
    head = f"HTTP/1.1 407 No\r\nDate: {values[0] if values else ''}\r\n{headers}Connection: close\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


def in_no_status_line(_whole: str, values: list[str]) -> bytes:
    """What is no HTTP at all."""
    return f"{' '.join(reversed(values))}\r\n\r\n".encode()


def in_no_header(_whole: str, values: list[str]) -> bytes:
    """A head with a line that is no header."""
    return f"HTTP/1.1 407 No\r\n{values[-1] if values else ''}\r\n\r\n".encode()


def in_an_envelope(status: int, code: int) -> Callable[[str, list[str]], bytes]:
    """Return a way that answers as a COS JSON store does, with the values in its message and its request id."""

    def way(_whole: str, values: list[str]) -> bytes:
        pieces = values[-1] if values else ""
        document = {"code": code, "message": " ".join([pieces, *values]), "request_id": pieces, "data": {}}
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nConnection: close\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    return way
