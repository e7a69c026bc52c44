"""The run's store: its journal is on disk, its slices are small, and it may die at any time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.acceptance.store import APPID, BUCKET, SECRET_ID, SECRET_KEY, StoreServer
from worker.local.process import Child, wait_until

if TYPE_CHECKING:
    from pathlib import Path


class ChaosStore(StoreServer):
    """A store whose past is in its journal's file, not in the process that it lived in."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self.journal = folder / "journal.jsonl"
        super().__init__(folder)

    def start(self) -> None:
        """Start the store, or start it again on its folder."""
        options = {
            "--data-dir": self.folder / "data", "--port": self._ports[0], "--control-port": self._ports[1],
            "--appid": APPID, "--bucket": BUCKET, "--secret-id": SECRET_ID, "--secret-key": SECRET_KEY,
            "--journal": self.journal,
        }  # fmt: skip
        words = [str(word) for option in options.items() for word in option]
        argv = [sys.executable, "-m", "tests.faults.chaos.store_process", *words, "--no-fsync"]
        self._child = Child(argv, log=self.folder / "store.log")
        assert wait_until(self._answers, timeout_s=30, alive=lambda: self._child.poll() is None), self._end_of_log()

    def kill(self) -> None:
        """SIGKILL for the store."""
        self._child.kill()

    def _end_of_log(self) -> str:
        return (self.folder / "store.log").read_text(errors="replace")[-2000:]
