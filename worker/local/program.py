"""A role of Sliceway, or any other program, as a service that can be started again and again."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from worker.local.listening import listens
from worker.local.process import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Program:
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
        """Describe the program; nothing happens before `launch`.

        Args:
            name: what people call it.
            argv: the program and its arguments.
            log: where its output is appended.
            env: its whole environment; None is ours.
            ready: says whether it does its work by now.
            port: what it listens on once it does its work; before, whatever answers there is a stranger.
            grace_s: how long it may take to end in order.
        """
        self.name = name
        self.log = log
        self._argv = argv
        self._env = env
        self._ready = ready
        self._port = port
        self._grace_s = grace_s
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the program started last."""
        return self._child.pid if self._child else None

    def launch(self) -> None:
        """Start it without waiting for it.

        Raises:
            LocalError: it cannot be started at all.
        """
        self._child = Child(self._argv, log=self.log, env=self._env)

    def is_ready(self) -> bool:
        """Whether it does its work by now."""
        if self._port is not None and not (self.pid and listens(self.pid, self._port)):
            return False
        return self._ready()

    def poll(self) -> int | None:
        """Its exit code once it has ended, else None."""
        return self._child.poll() if self._child else None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when the grace is over."""
        if self._child:
            self._child.stop(grace_s=self._grace_s)

    def kill(self) -> None:
        """SIGKILL for it and its children."""
        if self._child:
            self._child.kill()


def answers(host: str, port: int, path: str) -> bool:
    """Whether a GET of `path` is answered with 200."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
