"""The emulator: one store, the listener of its API and the listener of its control endpoint."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Self

from worker.emulator.control import CONTROL_FILE
from worker.emulator.control_server import ControlHandler, fresh_token
from worker.emulator.core.store import Store
from worker.emulator.cos_json.handler import CosJsonHandler
from worker.emulator.http.connection import HttpConnection
from worker.emulator.http.listener import Listener
from worker.emulator.http.throttle import Throttle

if TYPE_CHECKING:
    from pathlib import Path

    from worker.emulator.config import EmulatorConfig


class Emulator:
    """A COS JSON v4 store in background threads of this process.

    Use it as a context manager, or call `start` and `stop` once. Another emulator on the same folder continues with its
    objects and unfinished uploads.

    Args:
        config: The data folder, the addresses and the behaviour.
    """

    def __init__(self, config: EmulatorConfig) -> None:
        self._config = config
        self._parts: tuple[Store, Listener, Listener] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """URL of the store, without a path."""
        assert self._parts is not None, "the emulator is not started"
        return self._parts[1].url

    @property
    def control_url(self) -> str:
        """URL of the control endpoint, for `worker.emulator.control.Control`."""
        assert self._parts is not None, "the emulator is not started"
        return self._parts[2].url

    @property
    def token_file(self) -> Path:
        """The file with the token of the control endpoint; each start replaces the token."""
        return self._config.data_dir / CONTROL_FILE

    def start(self) -> None:
        """Opens the data folder and serves in the background.

        Raises:
            OSError: An address is in use, or the folder cannot be used.
        """
        config = self._config
        connect = functools.partial(
            HttpConnection, idle_timeout_s=config.idle_timeout_s, stall_timeout_s=config.stall_timeout_s
        )
        with contextlib.ExitStack() as undo:
            store = Store(config)
            undo.callback(store.close)
            throttle = Throttle(store.settings, store.stopping)
            store_listener = Listener((config.host, config.port), functools.partial(connect, throttle=throttle))
            undo.callback(store_listener.stop)
            control_listener = Listener(("127.0.0.1", config.control_port), connect)
            undo.callback(control_listener.stop)
            token = fresh_token(self.token_file)
            undo.pop_all()
        store_listener.start(CosJsonHandler(store))
        control_listener.start(ControlHandler(store, token))
        self._parts = store, store_listener, control_listener

    def stop(self) -> None:
        """Shuts down all connections and closes the data folder. All acknowledged data is on disk already."""
        if self._parts is None:
            return
        store, store_listener, control_listener = self._parts
        self._parts = None
        store.stop()
        control_listener.stop()
        store_listener.stop()
        store.close()
