"""What the links to the stores carry, as one worker process sees it: answered bytes, and the time in which it sent."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.errors import TIMEOUT_CODES, Interrupted, Stop, StoreError
from worker.jobs.links import KNOWN_FOR_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from worker.jobs.documents import LinkCounters


class _Traffic:
    """One store's counters since the process began, and what is under way to it."""

    __slots__ = (
        *("answered_at_s", "answered_bytes", "answered_s", "answers", "began_s"),
        *("busy_s", "busy_since_s", "timeouts", "took_s"),
    )

    def __init__(self) -> None:
        self.answers = self.answered_bytes = self.timeouts = 0
        self.answered_s = self.busy_s = self.busy_since_s = self.took_s = 0.0
        self.answered_at_s: float | None = None
        self.began_s: dict[int, float] = {}

    def oldest_s(self, now_s: float) -> float:
        """Return for how long the oldest request under way has been so."""
        return now_s - min(self.began_s.values()) if self.began_s else 0.0

    def counters(self, store: str, now_s: float) -> LinkCounters:
        """Return what is reported; all but `oldest_s` only ever grow."""
        busy_s = self.busy_s + (now_s - self.busy_since_s if self.began_s else 0.0)
        return {
            "store": store,
            "answers": self.answers,
            "answered_bytes": self.answered_bytes,
            "answered_s": round(self.answered_s, 4),
            "busy_s": round(busy_s, 4),
            "timeouts": self.timeouts,
            "oldest_s": round(self.oldest_s(now_s), 2),
        }


class LinkMeter:
    """Measures the requests that carry content. Safe to be used by several threads.

    The time in which several are under way to one store counts once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of no store yet."""
        self._clock = clock
        self._stores: dict[str, _Traffic] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._reported: list[LinkCounters] = []
        self.first_answer = threading.Event()
        """Set by a store's first answer after a long time: the dispatcher has to know of it to send more at once."""

    @contextmanager
    def sending(self, store: str, size_bytes: int) -> Iterator[None]:
        """Measure a request with so many bytes of content; it was answered if the block ends without an error."""
        traffic, number = self._begin(store)
        timed_out = False
        try:
            yield
        except Interrupted as error:
            timed_out = error.stop is Stop.DEADLINE
            raise
        except StoreError as error:
            timed_out = error.code in TIMEOUT_CODES
            raise
        else:
            self._answered(traffic, number, size_bytes)
        finally:
            self._end(traffic, number, timed_out=timed_out)

    def _begin(self, store: str) -> tuple[_Traffic, int]:
        with self._lock:
            traffic, number, now_s = self._stores.setdefault(store, _Traffic()), next(self._numbers), self._clock()
            if not traffic.began_s:
                traffic.busy_since_s = now_s
            traffic.began_s[number] = now_s
            return traffic, number

    def _answered(self, traffic: _Traffic, number: int, size_bytes: int) -> None:
        with self._lock:
            now_s = self._clock()
            if traffic.answered_at_s is None or now_s - traffic.answered_at_s > KNOWN_FOR_S:
                self.first_answer.set()
            traffic.answered_at_s, traffic.took_s = now_s, now_s - traffic.began_s[number]
            traffic.answers += 1
            traffic.answered_bytes += size_bytes
            traffic.answered_s += traffic.took_s

    def _end(self, traffic: _Traffic, number: int, *, timed_out: bool) -> None:
        with self._lock:
            del traffic.began_s[number]
            traffic.timeouts += timed_out
            if not traffic.began_s:
                traffic.busy_s += self._clock() - traffic.busy_since_s

    def is_slow(self, store: str, slow_slice_s: float) -> bool:
        """Say whether the store's slices take longer than that: the last one answered, or one under way."""
        with self._lock:
            traffic = self._stores.get(store)
            return traffic is not None and max(traffic.took_s, traffic.oldest_s(self._clock())) > slow_slice_s

    def report(self) -> list[LinkCounters] | None:
        """Return the counters of every store; None if nothing has changed since the last report."""
        with self._lock:
            now_s = self._clock()
            links = [traffic.counters(store, now_s) for store, traffic in self._stores.items()]
        if links == self._reported:
            return None
        self._reported = links
        return links
