"""The fork server: it starts processes with crash points, forked from one that has loaded the product.

They start in a third of the time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.faults.crash_injector import ARMED, FIRED, REACHED
from tests.faults.points import HOME
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SETTLE_S = 10.0
ENDED = -signal.SIGKILL
"""The exit code of every process that has ended: only its parent, the fork server, could read the real one."""


class ForkedProcess:
    """A forked process; see `worker.local.process.Child`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._handle = os.pidfd_open(pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    def poll(self) -> int | None:
        """`ENDED`, or None while it runs."""
        return ENDED if self._ended(0.0) else None

    def send(self, signum: signal.Signals) -> None:
        """Send a signal to it; nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signum)

    def stop(self, *, grace_s: float) -> int:
        """End it, by force after ``grace_s``."""
        self.send(signal.SIGTERM)
        if not self._ended(grace_s):
            self.send(signal.SIGKILL)
            self._ended(grace_s)
        return ENDED

    def _ended(self, timeout_s: float) -> bool:
        readable, _, _ = select.select([self._handle], [], [], timeout_s)
        return bool(readable)

    def __del__(self) -> None:
        os.close(self._handle)


class ForkServer:
    """The process that forks the others, and the folder in which their points are armed."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        """Start it, with this environment; it loads the product."""
        self.folder = folder
        for name in (ARMED, REACHED, FIRED):
            (folder / name).mkdir(parents=True)
        self._log = (folder / "fork_server.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crash_injector", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=HOME,
            env=environ,
            start_new_session=True,
        )

    def launch(self, argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> ForkedProcess:
        """Start a process: `python -m MODULE …`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"argv": list(argv), "log": str(log), "environ": dict(env)}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        pid = self._process.stdout.readline()
        assert pid, (self.folder / "fork_server.log").read_text()
        return ForkedProcess(int(pid))

    def arm(self, point: str) -> None:
        """Kill the first process that reaches the point."""
        (self.folder / ARMED / point).touch()

    def disarm(self) -> None:
        """Kill no process any more."""
        for point in (self.folder / ARMED).iterdir():
            point.unlink(missing_ok=True)

    def fired(self, point: str) -> bool:
        """Whether a process was killed at the point."""
        return (self.folder / FIRED / point).exists()

    def reached(self) -> set[str]:
        """The points that were passed since `forget`."""
        return {point.name for point in (self.folder / REACHED).iterdir()}

    def reached_by_all(self) -> set[str]:
        """The points that were passed, after each process has left its edge; for a scenario without a crash.

        A job may end, and the scenario with it, before the process that ended the job has passed its next point.
        """
        wait_until(lambda: not self._between(), timeout_s=_SETTLE_S)  # a commit that failed has no point after it
        return self.reached()

    def _between(self) -> set[str]:
        points = [point.rsplit(":", 1) for point in self.reached()]
        sides = {side: {edge for edge, where in points if where == side} for side in ("before", "after")}
        return sides["before"] - sides["after"]

    def forget(self) -> None:
        """Forget the points that were passed."""
        for name in (REACHED, FIRED):
            for point in (self.folder / name).iterdir():
                point.unlink(missing_ok=True)

    def close(self) -> None:
        """Kill it; its children die with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()
