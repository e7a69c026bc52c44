"""The run's store: its slices are small, and it may die at any time."""

from __future__ import annotations

from tests.support.store import StoreServer


class ChaosStore(StoreServer):
    """A store whose past is in its journal's file only, not in the process that it lived in."""

    program = "tests.faults.chaos.store_process"

    def kill(self) -> None:
        """SIGKILL for the store."""
        self._child.kill()
