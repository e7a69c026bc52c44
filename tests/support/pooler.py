"""A pooler as far as a client can tell at the start: it refuses the options of a session, or drops them unsaid.

What follows is passed on as it is, to a session of the client's own. `tests/matrix` has PgBouncer itself.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from contextlib import suppress
from typing import Self

_TLS, _GSS = 80877103, 80877104
"""What a client asks for before the first message: a way to encrypt."""
_REFUSAL = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"


class Pooler:
    """Listens at ``port`` for a server on loopback, until the `with` is left."""

    def __init__(self, target_port: int, *, refuses: bool) -> None:
        self._target = ("127.0.0.1", target_port)
        pooler = self

        class Client(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    pooler._serve(self.request, refuses=refuses)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, client: socket.socket, *, refuses: bool) -> None:
        while (code := struct.unpack("!i", (start := _startup(client))[:4])[0]) in {_TLS, _GSS}:
            client.sendall(b"N")
        fields = start[4:].split(b"\0")
        given = dict(zip(fields[::2], fields[1::2], strict=False))
        if given.pop(b"options", None) is not None and refuses:
            client.sendall(b"E" + struct.pack("!i", len(_REFUSAL) + 4) + _REFUSAL)
            return
        given.pop(b"", None)
        kept = b"".join(name + b"\0" + value + b"\0" for name, value in given.items()) + b"\0"
        with socket.create_connection(self._target) as server:
            server.sendall(struct.pack("!ii", len(kept) + 8, code) + kept)
            answers = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            answers.start()
            _pass_on(client, server)
            answers.join()


def _startup(client: socket.socket) -> bytes:
    """Read a message without a type, and return what follows its length."""
    (size,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
    return client.recv(size - 4, socket.MSG_WAITALL)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
