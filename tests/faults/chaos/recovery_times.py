"""Recovery times after each kind of fault, from the log of claims that the database's triggers wrote."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.faults.chaos.fault_schedule import BROKER_LOSSES, WORKER_KILLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.faults.chaos.fault_injector import FaultLog

Row = dict[str, Any]
_RESENT = """
  SELECT r.id, r.size, r.first_worker::text AS worker, extract(epoch FROM c.at)::float8 AS freed
  FROM history.resend r JOIN claim_log c ON c.job_id = r.job_id AND c.number = r.number AND c.worker = r.first_worker
  WHERE c.what = 'freed' AND c.at <= to_timestamp(r.at)"""


@dataclass(frozen=True, slots=True)
class Durations:
    """Recovery times in seconds, sorted."""

    seconds: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Durations:
        """Sort them."""
        return cls(tuple(sorted(seconds)))

    def share(self, part: float) -> float:
        """The percentile of this part, by nearest rank; NaN without samples."""
        if not self.seconds:
            return math.nan
        return self.seconds[max(0, math.ceil(part * len(self.seconds)) - 1)]

    def __str__(self) -> str:
        p50, p99, longest = (self.share(part) for part in (0.5, 0.99, 1.0))
        return (
            f"p50 {p50:6.2f}  p99 {p99:6.2f}  max {longest:6.2f}  (n={len(self.seconds)})" if self.seconds else "none"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log of claims."""

    at: float
    what: str
    worker: str | None


class RecoveryTimes:
    """The recovery times of one run."""

    def __init__(self, faults: FaultLog, sql: Callable[..., list[Row]]) -> None:
        """Read the log of claims.

        Args:
            faults: the faults of the run.
            sql: runs a statement.
        """
        self._faults, self._sql = faults, sql
        self._boots: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        for row in sql(
            "SELECT id::text, name, extract(epoch FROM started_at)::float8 AS at FROM worker ORDER BY started_at"
        ):
            self._boots[row["name"].rpartition(":")[2]].append((row["at"], row["id"]))
        self._logs: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)  # -1: the job's own step
        log = """SELECT job_id::text AS job, number, what, worker::text, extract(epoch FROM at)::float8 AS at
                 FROM claim_log ORDER BY at"""
        for row in sql(log):
            self._logs[row["job"], row["number"]].append(Entry(row["at"], row["what"], row["worker"]))

    def after_kills(self) -> Durations:
        """From a worker's SIGKILL until each slice and step that it held was claimed again."""
        return self._reclaimed(self._faults.of(*WORKER_KILLS), "killed")

    def after_stops(self) -> Durations:
        """From a worker's SIGTERM until each slice and step that it held was claimed again."""
        return self._reclaimed(self._faults.of("worker_stopped"), "asked")

    def rescued(self) -> Durations:
        """From a worker's SIGKILL until each slice and step that it held was freed for other workers."""
        lost = self._victims(self._faults.of(*WORKER_KILLS), "killed")
        return Durations.of(
            entry.at - lost[entry.worker]
            for log in self._logs.values()
            for entry in log
            if entry.what == "freed" and entry.worker in lost and entry.at >= lost[entry.worker]
        )

    def sent_twice(self, *faults: str, since: str) -> dict[str, int]:
        """Worker -> bytes of slices that it held at the fault, and that the store received again."""
        lost = self._victims(self._faults.of(*faults), since)
        found = {
            row["id"]: (row["worker"], row["size"])
            for row in self._sql(_RESENT)
            if row["worker"] in lost and row["freed"] >= lost[row["worker"]]
        }
        return {worker: sum(size for each, size in found.values() if each == worker) for worker, _ in found.values()}

    def after_broker_losses(self) -> Durations:
        """From the broker's return until each message that was lost with it was claimed."""
        losses = sorted((fault["lost"], fault["back"]) for fault in self._faults.of(*BROKER_LOSSES))
        times = []
        for log in self._logs.values():
            for dispatched, claimed in pairwise(log):
                if (dispatched.what, claimed.what) != ("dispatched", "claimed"):
                    continue
                first, last = bisect_left(losses, (dispatched.at,)), bisect_right(losses, (claimed.at,))
                times += [claimed.at - back for _, back in losses[first:last] if claimed.at > back][-1:]
        return Durations.of(times)

    def after_returns(self, fault: str) -> Durations:
        """From a server's return until the next claim."""
        return self._next("claimed", [row["back"] for row in self._faults.of(fault)])

    def after_leaders(self) -> Durations:
        """From the leader's SIGKILL until the next dispatch."""
        return self._next("dispatched", [row["killed"] for row in self._faults.of("leader_killed")])

    def _next(self, what: str, since: Sequence[float]) -> Durations:
        times = sorted(entry.at for log in self._logs.values() for entry in log if entry.what == what)
        return Durations.of(times[index] - at for at in since if (index := bisect_right(times, at)) < len(times))

    def _reclaimed(self, faults: Sequence[Row], since: str) -> Durations:
        lost, times = self._victims(faults, since), []
        for log in self._logs.values():
            for index, freed in enumerate(log):
                if freed.what != "freed" or freed.worker not in lost or freed.at < lost[freed.worker]:
                    continue
                claimed = next((later.at for later in log[index:] if later.what == "claimed"), None)
                if claimed is not None:  # None: the job was cancelled meanwhile
                    times.append(claimed - lost[freed.worker])
        return Durations.of(times)

    def _victims(self, faults: Sequence[Row], since: str) -> dict[str | None, float]:
        """Worker -> the time of the fault, by its pid and start."""
        victims: dict[str | None, float] = {}
        for fault in faults:
            boots = self._boots.get(str(fault["pid"]), [])
            if index := bisect_right(boots, (fault[since],)):
                victims[boots[index - 1][1]] = fault[since]
        return victims
