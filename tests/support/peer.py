"""A server that handles each connection by one function."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Server:
    """Handles each connection by one function, one after the other; counts them, and keeps the bodies of requests."""

    def __init__(self, serve: Callable[[Server, socket.socket], object]) -> None:
        self.heard: list[bytes] = []
        self.connections = 0
        self.gone = threading.Event()
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, suppress(OSError):
                    connection.settimeout(10)
                    self._serve(self, connection)
                self.gone.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)

    def take(self, connection: socket.socket) -> bool:
        """Read one request; return False at the end of the stream."""
        got = b""
        while b"\r\n\r\n" not in got:
            if not (more := connection.recv(65536)):
                return False
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: "))
        while len(body) < length:
            if not (more := connection.recv(1 << 20)):
                return False
            body += more
        self.heard.append(body)
        return True


def keep_first_bytes(server: Server, connection: socket.socket) -> None:
    """Keep the first bytes that a client sends, and close its connection: for `Server`."""
    if first := connection.recv(65536):
        server.heard.append(first)
