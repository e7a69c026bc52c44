"""A role of Sliceway, or any other program, as a service that the supervisor can restart."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from worker.local.listening import listens
from worker.local.process import Child, ChildService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Program(ChildService):
    """One program with its arguments, environment and log."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        ready: Callable[[], bool] = lambda: True,
        port: int | None = None,
        grace_s: float = 10.0,
    ) -> None:
        """Describe the program; `launch` starts it.

        Args:
            name: the name for messages.
            argv: the program and its arguments.
            log: the file to which its output is appended.
            env: its whole environment; None is that of this process.
            ready: says whether it can serve requests.
            port: the port that the process itself must listen on before `ready` is asked: until then another program
                may answer there.
            grace_s: time for a graceful stop.
        """
        self.name = name
        self.log = log
        self._argv = argv
        self._env = env
        self._ready = ready
        self._port = port
        self._grace_s = grace_s

    @property
    def pid(self) -> int | None:
        """The process id of the last start."""
        return self._child.pid if self._child else None

    def launch(self) -> None:
        """Start it without waiting for it.

        Raises:
            LocalError: it cannot be started.
        """
        self._child = Child(self._argv, log=self.log, env=self._env)

    def is_ready(self) -> bool:
        """Whether it can serve requests."""
        if self._port is not None and not (self.pid and listens(self.pid, self._port)):
            return False
        return self._ready()

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after `grace_s`."""
        if self._child:
            self._child.stop(grace_s=self._grace_s)


def answers(host: str, port: int, path: str) -> bool:
    """Whether a server answers a GET of `path` with 200."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
