"""The emulator as a whole: its listeners and its threads."""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING, Self

from worker.emulator.control_server import ControlServer
from worker.emulator.http import Answer, BadRequest, Connection, Disconnected
from worker.emulator.service import Service
from worker.emulator.store import Store

if TYPE_CHECKING:
    from types import TracebackType

    from worker.emulator.config import EmulatorConfig

_BACKLOG = 512
_JOIN_S = 10.0

_log = logging.getLogger(__name__)


class Emulator:
    """A COS JSON v4 store in background threads of this process.

    Use it as a context manager, or call `start` and `stop`. After a stop it cannot be started again; make another one
    on the same folder, and it goes on where this one was.

    Args:
        config: Where it keeps its things, and how it behaves.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        self._config = config
        self._store: Store | None = None
        self._listener: socket.socket | None = None
        self._control: ControlServer | None = None
        self._threads: set[threading.Thread] = set()
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the store, without a path."""
        assert self._listener is not None, "the emulator is not started"
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def control_url(self) -> str:
        """Address of the control endpoint, for `worker.emulator.control.Control`."""
        assert self._control is not None, "the emulator is not started"
        host, port = self._control.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Opens the data folder and listens.

        Raises:
            OSError: The address is taken, or the folder cannot be used.
        """
        self._listener = socket.create_server((self._config.host, self._config.port), backlog=_BACKLOG)
        self._store = Store(self._config)
        self._control = ControlServer(self._store, self._config.control_port)
        threading.Thread(target=self._control.serve_forever, name="emulator-control", daemon=True).start()
        threading.Thread(target=self._accept, args=(self._listener, self._store), name="emulator", daemon=True).start()

    def stop(self) -> None:
        """Cuts all connections and lets go of everything. What was acknowledged is on disk already."""
        if self._store is None or self._listener is None or self._control is None:
            return
        self._store.stop()
        self._control.shutdown()
        self._control.server_close()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            threads, connections = list(self._threads), list(self._connections)
        for connection in connections:
            connection.close()
        for thread in threads:
            thread.join(_JOIN_S)
        self._store.records.close()
        self._store = None

    def _accept(self, listener: socket.socket, store: Store) -> None:
        service = Service(store)
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            connection = Connection(
                sock,
                store.throttle,
                idle_timeout_s=self._config.idle_timeout_s,
                stall_timeout_s=self._config.stall_timeout_s,
            )
            thread = threading.Thread(target=self._serve, args=(connection, service, store), daemon=True)
            with self._lock:
                self._connections.add(connection)
                self._threads.add(thread)
            thread.start()

    def _serve(self, connection: Connection, service: Service, store: Store) -> None:
        try:
            _converse(connection, service, store)
        except Disconnected:
            pass
        except Exception:  # noqa: BLE001 - whatever it was, the other connections go on
            _log.exception("a connection ended by a fault of the emulator")
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)
                self._threads.discard(threading.current_thread())


def _converse(connection: Connection, service: Service, store: Store) -> None:
    while not store.stopping.is_set():
        try:
            request = connection.next_request()
        except BadRequest as bad:
            answer = Answer(bad.status, f"{bad}\n".encode(), "text/plain")
            connection.send(answer.head(now_s=store.settings.now(), keep_alive=False) + answer.body)
            connection.linger()
            return
        if request is None or not service.handle(connection, request):
            return
