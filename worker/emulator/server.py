"""The emulator as a whole: one store, the listener that serves it and the listener that controls it."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Self

from worker.emulator.control_server import ControlService
from worker.emulator.core.store import Store
from worker.emulator.cos_json.handler import CosJsonHandler
from worker.emulator.http.connection import HttpConnection
from worker.emulator.http.listener import Listener
from worker.emulator.private import CONTROL_FILE, fresh_token

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from worker.emulator.config import EmulatorConfig


class Emulator:
    """A COS JSON v4 store in background threads of this process.

    Use it as a context manager, or call `start` and `stop`. After a stop it cannot be started again; make another one
    on the same folder, and it goes on where this one was.

    Args:
        config: Where it keeps its things, and how it behaves.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        self._config = config
        self._parts: tuple[Store, Listener, Listener] | None = None

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
        assert self._parts is not None, "the emulator is not started"
        return self._parts[1].url

    @property
    def control_url(self) -> str:
        """Address of the control endpoint, for `worker.emulator.control.Control`."""
        assert self._parts is not None, "the emulator is not started"
        return self._parts[2].url

    @property
    def token_file(self) -> Path:
        """The file with the token that opens the control endpoint; another one at each start."""
        return self._config.data_dir / CONTROL_FILE

    def start(self) -> None:
        """Opens the data folder and serves in the background.

        Raises:
            OSError: An address is taken, or the folder cannot be used.
        """
        config = self._config
        connect = functools.partial(
            HttpConnection, idle_timeout_s=config.idle_timeout_s, stall_timeout_s=config.stall_timeout_s
        )
        with contextlib.ExitStack() as undo:
            store = Store(config)
            undo.callback(store.close)
            serving = Listener((config.host, config.port), functools.partial(connect, throttle=store.throttle))
            undo.callback(serving.stop)
            controlling = Listener(("127.0.0.1", config.control_port), connect)
            undo.callback(controlling.stop)
            token = fresh_token(self.token_file)
            undo.pop_all()
        serving.start(CosJsonHandler(store))
        controlling.start(ControlService(store, token))
        self._parts = store, serving, controlling

    def stop(self) -> None:
        """Cuts all connections and lets go of everything. What was acknowledged is on disk already."""
        if self._parts is None:
            return
        store, serving, controlling = self._parts
        self._parts = None
        store.stop()
        controlling.stop()
        serving.stop()
        store.close()
