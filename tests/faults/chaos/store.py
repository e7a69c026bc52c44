"""The store of a run: its slices are small, and faults kill it."""

from __future__ import annotations

from tests.support.store import StoreServer


class ChaosStore(StoreServer):
    """A store whose requests are read from its journal file only, since its process may be killed."""

    program = "tests.faults.chaos.store_process"

    def kill(self) -> None:
        """SIGKILL for the store."""
        self._child.kill()
