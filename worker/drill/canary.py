"""The canary as the drill sees it: a process of its own, what it says, and how it ends."""

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
    """What the canary held when it killed itself.

    Attributes:
        worker: its identity.
        job: whose slice it was sending.
        number: of the slice.
        token: of its claim.
        sent_bytes: how many bytes of the slice it had sent.
        size_bytes: of the slice.
        at_s: when, on this machine's monotonic clock.
    """

    worker: UUID
    job: UUID
    number: int
    token: int
    sent_bytes: int
    size_bytes: int
    at_s: float


class Canary:
    """One worker process that the drill has started, and the only one that it kills."""

    def __init__(self, environ: Mapping[str, str], prefix: str, folder: Path) -> None:
        """Start it; its notes and its log go into the folder.

        Raises:
            LocalError: it cannot be started at all.
        """
        self._notes, self._log = folder / "notes", folder / "log"
        ours = {
            "SLICEWAY_WORKER_THREADS": "1",  # it holds no slice but the one that it dies with
            "SLICEWAYDRILL_PREFIX": prefix,
            "SLICEWAYDRILL_NOTES": str(self._notes),
            PARENT_VARIABLE: str(os.getpid()),
        }
        options = ["--without-gossip", "--without-mingle", "-n", f"drill-{os.getpid()}@%h"]
        argv = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.drill.victim", "worker", *options]
        self._child = Child(argv, log=self._log, env={**environ, **ours})

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def gone(self) -> bool:
        """Whether it has ended, however."""
        return self._child.poll() is not None

    @property
    def ready(self) -> bool:
        """Whether it takes messages."""
        return any("ready" in note for note in self._read())

    @property
    def death(self) -> Death | None:
        """How it has killed itself, once it has."""
        if not self.gone:
            return None
        for note in self._read():
            if "died" in note:
                of = {name: note[name] for name in ("number", "token", "sent_bytes", "size_bytes", "at_s")}
                return Death(UUID(note["died"]), UUID(note["job"]), **of)
        return None

    @property
    def last_words(self) -> str:
        """The last line of its log."""
        return last_line(self._log)

    def stop(self) -> None:
        """End it in order, if it still runs; what it held goes back."""
        if not self.gone:
            self._child.stop(grace_s=_STOP_S)

    def _read(self) -> list[dict[str, Any]]:
        if not self._notes.exists():
            return []
        return [json.loads(line) for line in self._notes.read_text().splitlines() if line.endswith("}")]
