"""How long it took until work went on after a loss, by the log of claims that the database's triggers wrote."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.faults.chaos.mayhem import BROKER_LOSSES, WORKER_KILLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.faults.chaos.lanes import ActLog

Row = dict[str, Any]
_RESENT = """
  SELECT r.id, r.size, r.first_worker::text AS worker, extract(epoch FROM c.at)::float8 AS freed
  FROM history.resend r JOIN claim_log c ON c.job_id = r.job_id AND c.number = r.number AND c.worker = r.first_worker
  WHERE c.what = 'freed' AND c.at <= to_timestamp(r.at)"""


@dataclass(frozen=True, slots=True)
class Times:
    """Recovery times in seconds, sorted."""

    seconds: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Times:
        """Sort them."""
        return cls(tuple(sorted(seconds)))

    def share(self, part: float) -> float:
        """The time within which this part of them was over, by nearest rank; NaN if there are none."""
        if not self.seconds:
            return math.nan
        return self.seconds[max(0, math.ceil(part * len(self.seconds)) - 1)]

    def __str__(self) -> str:
        p50, p99, longest = (self.share(part) for part in (0.5, 0.99, 1.0))
        return (
            f"p50 {p50:6.2f}  p99 {p99:6.2f}  max {longest:6.2f}  (n={len(self.seconds)})" if self.seconds else "none"
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the log of claims; ``number`` -1 stands for the job's own step."""

    at: float
    what: str
    worker: str | None


class Recoveries:
    """The figures of one run."""

    def __init__(self, acts: ActLog, sql: Callable[..., list[Row]]) -> None:
        """Read the log.

        Args:
            acts: what was done.
            sql: runs a statement.
        """
        self._acts, self._sql = acts, sql
        self._boots: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        for row in sql(
            "SELECT id::text, name, extract(epoch FROM started_at)::float8 AS at FROM worker ORDER BY started_at"
        ):
            self._boots[row["name"].rpartition(":")[2]].append((row["at"], row["id"]))
        self._stories: defaultdict[tuple[str, int], list[Moment]] = defaultdict(list)
        log = """SELECT job_id::text AS job, number, what, worker::text, extract(epoch FROM at)::float8 AS at
                 FROM claim_log ORDER BY at"""
        for row in sql(log):
            self._stories[row["job"], row["number"]].append(Moment(row["at"], row["what"], row["worker"]))

    def after_kills(self) -> Times:
        """From a worker's SIGKILL until each slice and step that it held was claimed again."""
        return self._held_again(self._acts.of(*WORKER_KILLS), "killed")

    def after_stops(self) -> Times:
        """The same from SIGTERM."""
        return self._held_again(self._acts.of("worker_stopped"), "asked")

    def noticed(self) -> Times:
        """From a worker's SIGKILL until what it held was given back, so that others could claim it."""
        lost = self._victims(self._acts.of(*WORKER_KILLS), "killed")
        return Times.of(
            moment.at - lost[moment.worker]
            for story in self._stories.values()
            for moment in story
            if moment.what == "freed" and moment.worker in lost and moment.at >= lost[moment.worker]
        )

    def sent_twice(self, *acts: str, since: str) -> dict[str, int]:
        """Worker -> bytes of slices that it held when this befell it, and that the store was sent again."""
        lost = self._victims(self._acts.of(*acts), since)
        found = {
            row["id"]: (row["worker"], row["size"])
            for row in self._sql(_RESENT)
            if row["worker"] in lost and row["freed"] >= lost[row["worker"]]
        }
        return {worker: sum(size for each, size in found.values() if each == worker) for worker, _ in found.values()}

    def after_broker_losses(self) -> Times:
        """From the broker's return until each message that was lost with it was claimed."""
        losses = sorted((act["lost"], act["back"]) for act in self._acts.of(*BROKER_LOSSES))
        times = []
        for story in self._stories.values():
            for handed_out, taken in pairwise(story):
                if (handed_out.what, taken.what) != ("dispatched", "claimed"):
                    continue
                first, last = bisect_left(losses, (handed_out.at,)), bisect_right(losses, (taken.at,))
                times += [taken.at - back for _, back in losses[first:last] if taken.at > back][-1:]
        return Times.of(times)

    def after_returns(self, act: str) -> Times:
        """From a server's return until anything was claimed."""
        return self._next("claimed", [row["back"] for row in self._acts.of(act)])

    def after_leaders(self) -> Times:
        """From the leader's SIGKILL until anything was dispatched."""
        return self._next("dispatched", [row["killed"] for row in self._acts.of("leader_killed")])

    def _next(self, what: str, since: Sequence[float]) -> Times:
        times = sorted(moment.at for story in self._stories.values() for moment in story if moment.what == what)
        return Times.of(times[place] - at for at in since if (place := bisect_right(times, at)) < len(times))

    def _held_again(self, acts: Sequence[Row], moment: str) -> Times:
        lost, times = self._victims(acts, moment), []
        for story in self._stories.values():
            for place, freed in enumerate(story):
                if freed.what != "freed" or freed.worker not in lost or freed.at < lost[freed.worker]:
                    continue
                again = next((later.at for later in story[place:] if later.what == "claimed"), None)
                if again is not None:  # or the job was cancelled meanwhile
                    times.append(again - lost[freed.worker])
        return Times.of(times)

    def _victims(self, acts: Sequence[Row], moment: str) -> dict[str | None, float]:
        """Worker -> when it befell it."""
        victims: dict[str | None, float] = {}
        for act in acts:
            boots = self._boots.get(str(act["pid"]), [])
            if place := bisect_right(boots, (act[moment],)):
                victims[boots[place - 1][1]] = act[moment]
        return victims
