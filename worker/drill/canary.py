"""The drill's handle on the canary: it starts the process, reads its notes, and stops it.

`canary_worker` is the program of that process.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from worker.local.process import Child, last_line
from worker.runtime.heartbeat import PARENT_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_STOP_S = 8.0


@dataclass(frozen=True, slots=True)
class Death:
    """The claim that the canary held when it killed itself.

    Attributes:
        worker: the canary's boot identity.
        job: the job of the slice.
        number: the number of the slice.
        token: the fencing token of the claim.
        sent_bytes: bytes of the slice that the canary had sent.
        size_bytes: size of the slice.
        at_s: time of the kill on this machine's monotonic clock.
    """

    worker: UUID
    job: UUID
    number: int
    token: int
    sent_bytes: int
    size_bytes: int
    at_s: float


class Canary:
    """The worker process that the drill has started, and the only one that dies in it."""

    def __init__(self, environ: Mapping[str, str], prefix: str, folder: Path) -> None:
        """Start the process. Its notes and its log go into the folder.

        Raises:
            LocalError: the process cannot be started.
        """
        self._notes, self._log = folder / "notes", folder / "log"
        ours = {
            "SLICEWAY_WORKER_THREADS": "1",  # the crash then costs exactly one slice
            "SLICEWAYDRILL_PREFIX": prefix,  # `canary_worker` documents both; importing it would start Celery
            "SLICEWAYDRILL_NOTES": str(self._notes),
            PARENT_VARIABLE: str(os.getpid()),
        }
        options = ["--without-gossip", "--without-mingle", "-n", f"drill-{os.getpid()}@%h"]
        argv = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.drill.canary_worker", "worker", *options]
        self._child = Child(argv, log=self._log, env={**environ, **ours})

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended, for any reason."""
        return self._child.poll() is not None

    @property
    def ready(self) -> bool:
        """Whether the canary consumes messages."""
        return any("ready" in note for note in self._read_notes())

    @property
    def death(self) -> Death | None:
        """The claim that the canary died with; None if it has not killed itself."""
        if not self.ended:
            return None
        for note in self._read_notes():
            if "died" in note:
                of = {name: note[name] for name in ("number", "token", "sent_bytes", "size_bytes", "at_s")}
                return Death(UUID(note["died"]), UUID(note["job"]), **of)
        return None

    @property
    def last_log_line(self) -> str:
        """The last line of the canary's log."""
        return last_line(self._log)

    def stop(self) -> None:
        """Stop the process gracefully if it still runs: it gives its claims back."""
        if not self.ended:
            self._child.stop(grace_s=_STOP_S)

    def _read_notes(self) -> list[Mapping[str, Any]]:
        if not self._notes.exists():
            return []
        return [json.loads(line) for line in self._notes.read_text().splitlines() if line.endswith("}")]
