"""Accepting connections and giving each its thread."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol

from worker.emulator.http.connection import Disconnected, HttpConnection, HttpRequest, HttpResponse, MalformedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG = 512
_JOIN_S = 10.0

_log = logging.getLogger(__name__)


class Handler(Protocol):
    """Answers the requests of any number of connections at once."""

    def handle(self, connection: HttpConnection, request: HttpRequest) -> bool:
        """Answers one request and returns whether the connection can serve another."""


class Listener:
    """Listens as soon as it is made, serves once it is started.

    Args:
        address: Host and port; port 0 lets the system choose.
        connect: Makes a connection of an accepted socket.

    Raises:
        OSError: The address is taken.
    """

    def __init__(self, address: tuple[str, int], connect: Callable[[socket.socket], HttpConnection]) -> None:
        self._connect = connect
        self._listening = socket.create_server(address, backlog=_BACKLOG)
        host, port = self._listening.getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self._threads: dict[threading.Thread, HttpConnection] = {}
        self._lock = threading.Lock()
        self._stopping = False

    def start(self, handler: Handler) -> None:
        """Serves in the background."""
        threading.Thread(target=self._accept, args=(handler,), daemon=True).start()

    def stop(self) -> None:
        """Cuts all connections and returns when nothing is served any more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            self._stopping = True
            threads = dict(self._threads)
        for connection in threads.values():
            connection.cut()
        for thread in threads:
            thread.join(_JOIN_S)

    def _accept(self, handler: Handler) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            connection = self._connect(sock)
            thread = threading.Thread(target=self._serve, args=(connection, handler), daemon=True)
            with self._lock:
                if self._stopping:
                    connection.close()
                    return
                self._threads[thread] = connection
            thread.start()

    def _serve(self, connection: HttpConnection, handler: Handler) -> None:
        try:
            _converse(connection, handler)
        except Disconnected:
            pass
        except Exception:  # noqa: BLE001 - whatever it was, the other connections go on
            _log.exception("a connection ended by a fault of the emulator")
        finally:
            connection.close()
            with self._lock:
                del self._threads[threading.current_thread()]


def _converse(connection: HttpConnection, handler: Handler) -> None:
    while True:
        try:
            request = connection.next_request()
        except MalformedRequest as bad:
            answer = HttpResponse(bad.status, f"{bad}\n".encode(), "text/plain")
            connection.send(answer.head(now_s=time.time(), keep_alive=False) + answer.body)
            connection.linger()
            return
        if request is None or not handler.handle(connection, request):
            return
