"""The verdict on a run: everything that is wrong with it, and its figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.faults.chaos.cluster import THREADS
from tests.faults.chaos.fault_schedule import BROKER_LOSSES, WORKER_KILLS
from tests.faults.chaos.recovery_times import RecoveryTimes
from tests.faults.chaos.workload import SLICE_BYTES, Variant
from tests.faults.checker import Report, check
from tests.faults.store_contents import EmulatorFolder
from tests.support.store import BUCKET, SECRET_KEY
from worker.jobs.states import FINAL
from worker.runtime.concurrency import most_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.expectations import Expectations
    from tests.faults.chaos.fault_injector import FaultLog

Row = dict[str, Any]
#: What no log may contain: signs of a bug, or a secret.
_NEVER_LOGGED = ("task.broken", "dispatcher.broken", "Exception in thread", SECRET_KEY)
#: How jobs may end, by variant; all others must succeed.
_ENDS: dict[Variant, set[tuple[str, str | None]]] = {
    Variant.REFUSED: {("failed", "object_exists")},
    Variant.CANCEL: {("cancelled", None), ("succeeded", None)},
    # after a lost answer to an init that replaces an object, nothing distinguishes its upload from a foreign one
    Variant.OVERWRITE: {("succeeded", None), ("failed", "upload_in_progress")},
}
#: What a worker may hold without a checkpoint: slices in flight, and slices that wait for a group commit.
_HELD_BYTES = most_tasks(THREADS) * SLICE_BYTES
_LOST, _CORRUPT, _TWICE = ("accepted", "submits"), ("objects", "sends", "checkpoints", "foreign_objects"), ("finishes",)


class Verdict:
    """Checks a run whose workers have stopped; the database still runs."""

    def __init__(self, cluster: Cluster, expectations: Expectations, log: FaultLog) -> None:
        """Check everything; sets `wrong` and `figures`.

        Args:
            cluster: of the run.
            expectations: the accepted jobs.
            log: the faults of the run.
        """
        self._cluster, self._expectations, self._log = cluster, expectations, log
        self.report: Report = check(
            cluster.database.url,
            recorded=[cluster.history],
            journals=[cluster.store.journal],
            contents=EmulatorFolder(cluster.folder / "data", BUCKET),
            secrets=(SECRET_KEY,),
        )
        rows = cluster.sql("SELECT id::text, key, state, error->>'code' AS code FROM job")
        self._jobs = {row["id"]: row for row in rows}
        self.wrong = [
            *expectations.errors,
            *log.errors,
            *map(str, self.report.violations),
            *self._ends(),
            *_wrong_log_lines(cluster),
        ]
        self._times = RecoveryTimes(log, cluster.sql)
        self.figures = self._figures()

    def _ends(self) -> Iterator[str]:
        """Check that each job has ended as its client can expect."""
        for job in self._expectations.jobs.values():
            row = self._jobs.get(job.id)
            if row is None or row["state"] not in FINAL:
                continue  # the checker reports it
            variant, end = job.request.variant, (row["state"], row["code"])
            if end not in _ENDS.get(variant, {("succeeded", None)}):
                yield f"end: job {job.id} for {row['key']} ({variant}) is {row['state']}, {row['code']}"

    def check_targets(self) -> None:
        """Add to `wrong` each recovery that took too long for the timers as shipped."""
        times = self._times
        for what, seconds, max_s in (
            ("99 % of what killed workers held was claimed again", times.after_kills().share(0.99), 15.0),
            ("what stopped workers held was claimed again", times.after_stops().share(1.0), 2.0),
            ("what the broker lost was claimed after its return", times.after_broker_losses().share(1.0), 5.0),
            ("a claim followed PostgreSQL's return", times.after_returns("database_restarted").share(1.0), 5.0),
            ("a dispatch followed the leader's death", times.after_leaders().share(1.0), 5.0),
        ):
            if seconds > max_s:
                self.wrong.append(f"target: {what} only within {seconds:.1f} s, not {max_s:g} s")
        if sent_twice := sum(times.sent_twice("worker_stopped", since="asked").values()):
            self.wrong.append(f"target: {sent_twice} bytes were sent twice after SIGTERM")

    def _figures(self) -> list[tuple[str, str]]:
        """The figures to print, as (name, value)."""
        found, counts = self.report.figures, self._log.counts()
        return [
            ("jobs", f"{sum(found.jobs.values())}: {_listed(found.jobs)}"),
            ("lost / corrupt / finished twice / stuck", " / ".join(map(str, self._verdicts()))),
            ("worker processes killed", f"{_sum(counts, WORKER_KILLS)} ({found.workers_dead} declared dead in all)"),
            ("broker losses", f"{_sum(counts, BROKER_LOSSES)}"),
            ("PostgreSQL restarts (immediate)", f"{counts['database_restarted']}"),
            ("store restarts", f"{counts['store_killed']}"),
            ("all faults", _listed(counts)),
            ("claims of slices", f"{found.claims}, {found.claims_lapsed} ended without a checkpoint"),
            ("checkpoints", f"{found.checkpoints}, {found.checkpoints_undone} undone as the store had lost the slice"),
            ("sessions lost; retries by an operator", f"{found.sessions_lost}; {found.retries}"),
            ("submits without an answer", f"{found.submits_unanswered} of {found.submits}"),
            ("bytes sent", f"{found.bytes_sent:,}, of these not stored {found.bytes_not_stored:,}"),
            *self._twice(),
            *self._recoveries(),
        ]

    def _verdicts(self) -> tuple[int, int, int, int]:
        broken = Counter(violation.invariant for violation in self.report.violations)
        stuck = sum(row["state"] not in FINAL for row in self._jobs.values())
        return _sum(broken, _LOST) - stuck, _sum(broken, _CORRUPT), _sum(broken, _TWICE), stuck

    def _twice(self) -> Iterator[tuple[str, str]]:
        """The bytes sent twice; a killed worker may have held a slice for each thread and its prefetched slices."""
        by_killed = self._times.sent_twice(*WORKER_KILLS, since="killed")
        if (most := max(by_killed.values(), default=0)) > _HELD_BYTES:
            self.wrong.append(f"twice: {most} bytes were sent twice for one killed worker with {THREADS} threads")
        yield "bytes sent twice, whatever the cause", f"{self.report.figures.bytes_sent_twice:,}"
        bound = f"{_HELD_BYTES:,} a worker were possible"
        yield "  of these for killed workers", f"{sum(by_killed.values()):,}; at most {most:,}, {bound}"

    def _recoveries(self) -> Iterator[tuple[str, str]]:
        times = self._times
        yield "seconds from SIGKILL of a worker until its work was freed", str(times.rescued())
        yield "  until it was claimed again", str(times.after_kills())
        yield "  from SIGTERM until it was claimed again", str(times.after_stops())
        yield "  from the broker's return until the lost messages were claimed", str(times.after_broker_losses())
        yield "  from PostgreSQL's return until the next claim", str(times.after_returns("database_restarted"))
        yield "  from SIGKILL of the leader until the next dispatch", str(times.after_leaders())


def _wrong_log_lines(cluster: Cluster) -> Iterator[str]:
    for log in cluster.logs():
        with log.open(errors="replace") as lines:
            for line in lines:
                if any(text in line for text in _NEVER_LOGGED):
                    yield f"log: {log.name}: {line.strip()[:500]}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _sum(counts: Counter[str], names: tuple[str, ...]) -> int:
    return sum(counts[name] for name in names)
