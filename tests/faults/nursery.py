"""Processes with watched edges, forked from one that has loaded the product: up in a third of the time."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.faults.armed import ARMED, FIRED, REACHED
from tests.faults.points import HOME
from worker.local.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_BEHIND_S = 10.0
GONE = -signal.SIGKILL
"""The code that is told of every process that has ended: whose child it was, knows better."""


class Forked:
    """One such process; see `worker.local.process.Child`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._handle = os.pidfd_open(pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    def poll(self) -> int | None:
        """Whether it has ended, as a code; None while it runs."""
        return GONE if self._ended(0.0) else None

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
        return GONE

    def _ended(self, timeout_s: float) -> bool:
        readable, _, _ = select.select([self._handle], [], [], timeout_s)
        return bool(readable)

    def __del__(self) -> None:
        os.close(self._handle)


class Nursery:
    """Where they come from, and the folder by which their points are armed."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        """Load the product in a process of its own, with this environment."""
        self.folder = folder
        for name in (ARMED, REACHED, FIRED):
            (folder / name).mkdir(parents=True)
        self._log = (folder / "nursery.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.armed", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=HOME,
            env=environ,
            start_new_session=True,
        )

    def launch(self, argv: Sequence[str], *, log: Path, env: Mapping[str, str]) -> Forked:
        """Start a process: `python -m MODULE …`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wish = {"argv": list(argv), "log": str(log), "environ": dict(env)}
        self._process.stdin.write(json.dumps(wish).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, (self.folder / "nursery.log").read_text()
        return Forked(int(answer))

    def arm(self, point: str) -> None:
        """Let the first process that comes to the point die there."""
        (self.folder / ARMED / point).touch()

    def disarm(self) -> None:
        """Let nobody die any more."""
        for point in (self.folder / ARMED).iterdir():
            point.unlink(missing_ok=True)

    def fired(self, point: str) -> bool:
        """Whether somebody has died at the point."""
        return (self.folder / FIRED / point).exists()

    def reached(self) -> set[str]:
        """Which points were passed since `forget`."""
        return {point.name for point in (self.folder / REACHED).iterdir()}

    def reached_by_all(self) -> set[str]:
        """Which points were passed, once each process is behind the edge that it was at; for a play without a death.

        A job may have ended, and so the play, before the process that ended it has passed its next point.
        """
        wait_until(lambda: not self._between(), timeout_s=_BEHIND_S)  # a commit that failed has no point after it
        return self.reached()

    def _between(self) -> set[str]:
        points = [point.rsplit(":", 1) for point in self.reached()]
        sides = {side: {edge for edge, where in points if where == side} for side in ("before", "after")}
        return sides["before"] - sides["after"]

    def forget(self) -> None:
        """Begin anew to note what is passed."""
        for name in (REACHED, FIRED):
            for point in (self.folder / name).iterdir():
                point.unlink(missing_ok=True)

    def close(self) -> None:
        """End it, and with it all that came from it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()
