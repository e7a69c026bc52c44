"""The store drivers of one process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from worker.stores.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.config.profiles import StoreProfile
    from worker.stores.base import StoreDriver
    from worker.tasks.guard import ClaimGuard


class _Opened(NamedTuple):
    """A driver, and the profile that it was made for."""

    profile: StoreProfile
    driver: StoreDriver


class _Retired(NamedTuple):
    """A driver that no new work gets, and the work that may still use it."""

    driver: StoreDriver
    users: Sequence[ClaimGuard]


class Drivers:
    """One driver a store, with its pooled connections. Safe to be used by all threads of the process."""

    def __init__(self) -> None:
        """Open none yet."""
        self._drivers: dict[str, _Opened] = {}
        self._replaced: list[StoreDriver] = []
        self._retired: list[_Retired] = []
        self._opening = threading.Lock()

    def of(self, profile: StoreProfile) -> StoreDriver:
        """Return the driver of a store. The first call opens it, and the first one after a change of the profile."""
        with self._opening:
            opened = self._drivers.get(profile.name)
            if opened is None or opened.profile is not profile:
                made = _Opened(profile, self.open(profile))
                if opened is not None:
                    self._replaced.append(opened.driver)
                opened = self._drivers[profile.name] = made
            return opened.driver

    def open(self, profile: StoreProfile) -> StoreDriver:
        """Make the driver of a store."""
        return open_store(profile)

    def close_unused(self, stores: Mapping[str, StoreProfile], current: Callable[[], Sequence[ClaimGuard]]) -> None:
        """Close the drivers of profiles from before a reload, once no work that began with them goes on.

        Args:
            stores: the profiles in use, by name.
            current: returns the guards of what is being worked on now.
        """
        with self._opening:
            for name, opened in list(self._drivers.items()):
                if stores.get(name) is not opened.profile:
                    self._replaced.append(self._drivers.pop(name).driver)
            if not self._replaced and not self._retired:
                return
            working = current()  # within the lock: who has got a driver is among them
            self._retired += [_Retired(driver, working) for driver in self._replaced]
            self._replaced = []
            unused = [each for each in self._retired if not any(user in working for user in each.users)]
            self._retired = [each for each in self._retired if each not in unused]
        for each in unused:
            each.driver.close()

    def close(self) -> None:
        """Close all connections."""
        kept = [*(opened.driver for opened in self._drivers.values()), *(each.driver for each in self._retired)]
        for driver in [*kept, *self._replaced]:
            driver.close()
