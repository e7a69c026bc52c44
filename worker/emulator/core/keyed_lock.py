"""A lock per key, for work on one session or one slice."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator


class KeyedLock:
    """Each key is held by at most one thread; it costs memory only while it is held."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, key: Hashable) -> Iterator[None]:
        """Waits for the key and holds it until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: key not in self._held)
            self._held.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._held.discard(key)
                self._changed.notify_all()
