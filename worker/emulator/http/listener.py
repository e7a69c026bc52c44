"""A TCP listener with a thread per connection."""

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
    """Serves the requests of many connections concurrently."""

    def handle(self, connection: HttpConnection, request: HttpRequest) -> bool:
        """Serves one request and returns whether the connection stays open."""


class Listener:
    """Listens from its construction, serves from `start`.

    Args:
        address: Host and port; port 0 lets the system choose.
        connect: Makes an `HttpConnection` from an accepted socket.

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
        """Accepts connections in a background thread."""
        threading.Thread(target=self._accept, args=(handler,), daemon=True).start()

    def stop(self) -> None:
        """Shuts down all connections and waits for their threads."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            self._stopping = True
            threads = dict(self._threads)
        for connection in threads.values():
            connection.shut_down()
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
            _serve_requests(connection, handler)
        except Disconnected:
            pass
        except Exception:  # noqa: BLE001 - the other connections go on
            _log.exception("a connection failed")
        finally:
            connection.close()
            with self._lock:
                del self._threads[threading.current_thread()]


def _serve_requests(connection: HttpConnection, handler: Handler) -> None:
    while True:
        try:
            request = connection.next_request()
        except MalformedRequest as error:
            response = HttpResponse(error.status, f"{error}\n".encode(), "text/plain")
            connection.send(response.head(now_s=time.time(), keep_alive=False) + response.body)
            connection.linger()
            return
        if request is None or not handler.handle(connection, request):
            return
