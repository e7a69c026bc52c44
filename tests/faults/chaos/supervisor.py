"""Supervised processes: each is started again when it has ended, as by a service manager."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.processes import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CHECK_INTERVAL_S = 0.1
_STOP_TIMEOUT_S = 10.0


class SupervisedProcess:
    """A process, and after its end the next one in its place."""

    def __init__(self, name: str, environ: Mapping[str, str], folder: Path, argv: Sequence[str] | None = None) -> None:
        """Start the first process.

        Args:
            name: of the log.
            environ: of every process.
            folder: of the log.
            argv: the command; None for a worker process as `sliceway worker` starts it.
        """
        self.name, self._environ, self._folder, self._argv = name, environ, folder, argv
        self._starts = 0
        self.process = self._start()

    def _start(self) -> Worker:
        self._starts += 1
        return Worker(os.getpid() * 1000 + self._starts, self._environ, self._folder / f"{self.name}.log", self._argv)

    def restart_if_ended(self) -> None:
        """Start a new process if the last one has ended."""
        if not self.process.alive:
            self.process = self._start()


class Supervisor(threading.Thread):
    """Restarts processes until it stops."""

    def __init__(self, supervised: Sequence[SupervisedProcess]) -> None:
        """Supervise these processes."""
        super().__init__(name="supervisor", daemon=True)
        self._supervised = supervised
        self._stopping = threading.Event()

    def run(self) -> None:
        """Restart each process that has ended."""
        while not self._stopping.wait(_CHECK_INTERVAL_S):
            for each in self._supervised:
                each.restart_if_ended()

    def stop(self) -> None:
        """Restart no process any more, then stop all processes in order, at the same time."""
        self._stopping.set()
        self.join()
        for each in self._supervised:
            if each.process.alive:
                each.process.thaw()
                each.process.terminate()
        for each in self._supervised:
            each.process.ended(_STOP_TIMEOUT_S)
            each.process.stop()


def processes_with(variable: str, value: str) -> list[int]:
    """Return our processes that have this variable in their environment."""
    wanted, found = f"{variable}={value}".encode(), []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return found
