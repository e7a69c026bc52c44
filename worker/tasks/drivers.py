"""The store drivers of one process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker.stores.registry import open_store

if TYPE_CHECKING:
    from worker.config.profiles import StoreProfile
    from worker.stores.base import StoreDriver


class Drivers:
    """One driver a store, with its pooled connections. Safe to be used by all threads of the process."""

    def __init__(self) -> None:
        """Open none yet."""
        self._drivers: dict[str, StoreDriver] = {}
        self._opening = threading.Lock()

    def of(self, profile: StoreProfile) -> StoreDriver:
        """Return the driver of a store; the first call opens it."""
        with self._opening:
            if profile.name not in self._drivers:
                self._drivers[profile.name] = self.open(profile)
            return self._drivers[profile.name]

    def open(self, profile: StoreProfile) -> StoreDriver:
        """Make the driver of a store."""
        return open_store(profile)

    def close(self) -> None:
        """Close all connections."""
        for driver in self._drivers.values():
            driver.close()
