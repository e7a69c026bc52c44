"""The requests of one process that carry bytes of files: how many at once, how fast, and their buffers."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.tasks.limiters import ResizableSemaphore
from worker.tasks.link_meter import LinkMeter
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.tasks.guard import ClaimGuard


class Transfers:
    """The slots of a process, and what it measures of its links. Safe to be used by its task threads."""

    def __init__(self, slots: int, slow_slice_s: float) -> None:
        """Begin with so many slots.

        Args:
            slots: how many requests carry bytes at once; it may be resized.
            slow_slice_s: a store whose slices take longer gets half of the slots at most.
        """
        self.links = LinkMeter()
        self.room = ResizableSemaphore(slots)
        self.sent: list[float] = []
        """The seconds that each request took; the heartbeat takes the list."""
        self._slow_slice_s = slow_slice_s
        self._local = threading.local()

    @contextmanager
    def sending(self, guard: ClaimGuard, store: str, size_bytes: int) -> Iterator[None]:
        """Wait for a slot for a request that carries bytes of a file, and measure it."""
        slow = self.links.is_slow(store, self._slow_slice_s)
        with self.room.enter(guard, slow=slow), self.links.sending(store, size_bytes):
            guard.begin_sending(size_bytes)
            began_s = time.monotonic()
            yield
            took_s = time.monotonic() - began_s
        self.sent.append(took_s)
        emit("slice.sent", store=store, size_bytes=size_bytes, took_s=took_s)

    def buffer(self, size_bytes: int) -> memoryview:
        """Return this thread's buffer, so many bytes of it; it is used again for the thread's next slice."""
        kept: bytearray | None = getattr(self._local, "buffer", None)
        if kept is None or len(kept) < size_bytes:
            kept = self._local.buffer = bytearray(size_bytes)
        return memoryview(kept)[:size_bytes]
