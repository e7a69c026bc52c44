"""What the leader learns of the links to the stores from the workers' reports. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from worker.jobs.documents import LinkCounters
from worker.jobs.links import KNOWN_FOR_S, Link

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID


Reports = Sequence[tuple["UUID", list[LinkCounters]]]

WINDOW_S = 10.0
"""Goodput is that of the last seconds in which anything was under way: time in which nothing was says nothing."""
BUCKET_S = 2.0
"""Reports of so long are added up: about a heartbeat, so that each worker is in a bucket once."""


@dataclass(slots=True)
class _Bucket:
    """What all workers reported in about the same time."""

    began_s: float
    since_s: float
    ended_s: float = 0.0
    answers: float = 0
    answered_bytes: float = 0.0
    answered_s: float = 0.0
    busy_s: dict[UUID, float] = field(default_factory=dict)

    def under_way_s(self) -> float:
        """Return the time in which anything was under way, in whichever worker.

        Workers that take turns add up; those that send side by side do not, and no more time can have been used than
        has passed since the reports before.
        """
        passed_s = min(self.ended_s - self.since_s, 2 * BUCKET_S)
        return min(sum(self.busy_s.values()), max(passed_s, *self.busy_s.values()))


@dataclass(slots=True)
class _Window:
    buckets: deque[_Bucket] = field(default_factory=deque)
    oldest_s: dict[UUID, float] = field(default_factory=dict)

    def under_way_s(self) -> float:
        return sum(bucket.under_way_s() for bucket in self.buckets)

    def trim(self, now_s: float) -> None:
        """Forget what is older than the window, and what is too old to be believed."""
        while self.buckets and now_s - self.buckets[0].began_s > KNOWN_FOR_S:
            self.buckets.popleft()
        total_s = self.under_way_s()
        while len(self.buckets) > 1 and total_s - (first_s := self.buckets[0].under_way_s()) >= WINDOW_S:
            self.buckets.popleft()
            total_s -= first_s

    def link(self, known: Link | None) -> Link | None:
        """Return what the window shows; where nothing was answered in it yet, what was ``known`` before."""
        answers = sum(bucket.answers for bucket in self.buckets)
        under_way_s = self.under_way_s()
        if not answers:
            if under_way_s >= WINDOW_S:
                return Link(0.0, 0.0, self._oldest_s())
            return known and replace(known, answer_s=max(known.answer_s, self._oldest_s()))
        answered_bytes = sum(bucket.answered_bytes for bucket in self.buckets)
        answered_s = sum(bucket.answered_s for bucket in self.buckets)
        return Link(
            goodput_bytes_per_s=answered_bytes / max(under_way_s, 1e-4),
            answer_bytes=answered_bytes / answers,
            answer_s=max(answered_s / answers, self._oldest_s()),
        )

    def _oldest_s(self) -> float:
        return max(self.oldest_s.values(), default=0.0)


class LinkBook:
    """Adds up the reports of all workers to one link a store. Used by one thread, while it leads."""

    def __init__(self) -> None:
        """Know of nothing yet."""
        self._last: dict[tuple[UUID, str], LinkCounters] = {}
        self._windows: dict[str, _Window] = {}
        self._began_s = 0.0

    def begin_term(self, reports: Reports, now_s: float) -> None:
        """Count from where the counters are now: the leader before has made use of them."""
        self._last, self._windows, self._began_s = {}, {}, now_s
        for worker, links in reports:
            for counters in links:
                self._last[worker, counters["store"]] = counters

    def learn(self, reports: Reports, known: Mapping[str, Link], now_s: float) -> dict[str, Link]:
        """Take in the reports of all live workers; returns the links of which there is something new.

        Args:
            reports: worker and its counters a store, as `worker.tasks.link_meter` makes them.
            known: the links as they were.
            now_s: on a steady clock.
        """
        touched: set[str] = set()
        reporting: set[tuple[UUID, str]] = set()
        for worker, links in reports:
            for counters in links:
                reporting.add((worker, counters["store"]))
                if self._add(worker, counters, now_s):
                    touched.add(counters["store"])
        self._forget(self._last.keys() - reporting)
        found = {}
        for store in touched:
            window = self._windows[store]
            window.trim(now_s)
            if (link := window.link(known.get(store))) is not None:
                found[store] = link
        return found

    def _forget(self, gone: Iterable[tuple[UUID, str]]) -> None:
        """Forget workers that have ended; what they had under way is under way no more."""
        for worker, store in gone:
            del self._last[worker, store]
            if (window := self._windows.get(store)) is not None:
                window.oldest_s.pop(worker, None)

    def _add(self, worker: UUID, counters: LinkCounters, now_s: float) -> bool:
        store = counters["store"]
        before = self._last.get((worker, store))
        if counters == before:
            return False
        before = before or _zero(store)
        self._last[worker, store] = counters
        window = self._windows.setdefault(store, _Window())
        window.oldest_s[worker] = counters["oldest_s"]
        if not window.buckets or now_s - window.buckets[-1].began_s >= BUCKET_S:
            window.buckets.append(_Bucket(now_s, window.buckets[-1].ended_s if window.buckets else self._began_s))
        bucket = window.buckets[-1]
        bucket.answers += counters["answers"] - before["answers"]
        bucket.answered_bytes += counters["answered_bytes"] - before["answered_bytes"]
        bucket.answered_s += counters["answered_s"] - before["answered_s"]
        bucket.busy_s[worker] = bucket.busy_s.get(worker, 0.0) + counters["busy_s"] - before["busy_s"]
        bucket.ended_s = now_s
        if counters["timeouts"] > before["timeouts"]:
            # too much was in flight: half of it, until new answers show what the link carries
            for each in window.buckets:
                each.answered_bytes /= 2
        return True


def _zero(store: str) -> LinkCounters:
    """Return the counters of a process that has sent nothing yet."""
    return LinkCounters(store=store, answers=0, answered_bytes=0, answered_s=0.0, busy_s=0.0, timeouts=0, oldest_s=0.0)
