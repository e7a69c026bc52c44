"""Real worker processes, as an operator starts them: they can be killed, frozen, stopped, and their logs read."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.support.deadline import DEADLINE_S
from worker.local.process import Child, wait_until
from worker.runtime.supervisor import command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: A parent that keeps worker processes, as `sliceway worker` is.
PARENT = (
    sys.executable,
    "-c",
    (
        "from worker.config import settings; from worker.runtime import supervisor;"
        " raise SystemExit(supervisor.run(settings.load_settings()))"
    ),
)
#: A worker process without a parent, as Celery's own manual starts one.
ALONE = (sys.executable, "-m", "celery", "-A", "worker", "worker")


class Process(Protocol):
    """A process that was started; see `worker.local.process.Child`."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""

    def stop(self, *, grace_s: float) -> int:
        """End it, by force after so long."""


class Worker:
    """One process that runs tasks."""

    def __init__(
        self,
        number: int,
        environ: Mapping[str, str],
        log: Path,
        argv: Sequence[str] | None = None,
        launch: Callable[..., Process] = Child,
    ) -> None:
        """Start it.

        Args:
            number: unique among the workers of this run.
            environ: its whole environment.
            log: where its output goes.
            argv: another command than that of a child of `sliceway worker`.
            launch: starts it, given the command and what `Child` takes as `log` and `env`.
        """
        self.environ = dict(environ)
        self.log = log
        self._child = launch(argv or command(number), log=log, env=self.environ)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    def kill(self) -> None:
        """SIGKILL, for it alone."""
        self._child.send(signal.SIGKILL)
        assert wait_until(lambda: not self.alive, timeout_s=DEADLINE_S)

    def freeze(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self._child.send(signal.SIGSTOP)
        assert wait_until(lambda: _state(self.pid) == "T", timeout_s=DEADLINE_S)

    def thaw(self) -> None:
        """SIGCONT."""
        self._child.send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._child.send(signal.SIGTERM)

    def ended(self, timeout_s: float = DEADLINE_S) -> bool:
        """Wait until it has ended by itself; false when it has not in time."""
        return wait_until(lambda: not self.alive, timeout_s=timeout_s)

    def stop(self) -> None:
        """End it and whatever is left of it, in order if it can."""
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        self._child.stop(grace_s=30)

    def children(self) -> list[int]:
        """The processes that it has started and that live."""
        return [pid for pid in _pids() if _parent(pid) == self.pid and _state(pid) not in {"Z", ""}]

    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")


def running(pid: int) -> bool:
    """Whether a process with this id does anything."""
    return _state(pid) not in {"Z", ""}


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])
