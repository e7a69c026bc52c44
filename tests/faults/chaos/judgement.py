"""What a run has shown: everything that is wrong with it, and its figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.faults.chaos.cluster import THREADS
from tests.faults.chaos.errands import SLICE_BYTES, Twist
from tests.faults.chaos.mayhem import BROKER_LOSSES, WORKER_KILLS
from tests.faults.chaos.recovery import Recoveries
from tests.faults.checker import Report, check
from tests.faults.stored import Folder
from tests.support.store import BUCKET, SECRET_KEY
from worker.jobs.states import FINAL
from worker.runtime.concurrency import most_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.chaos.cluster import Cluster
    from tests.faults.chaos.lanes import ActLog
    from tests.faults.chaos.told import Told

Row = dict[str, Any]
#: What no log may have: a fault of ours, or a secret.
_NEVER_LOGGED = ("task.broken", "dispatcher.broken", "Exception in thread", SECRET_KEY)
#: How errands may end, where it is not with success.
_ENDS: dict[Twist, set[tuple[str, str | None]]] = {
    Twist.REFUSED: {("failed", "object_exists")},
    Twist.CANCEL: {("cancelled", None), ("succeeded", None)},
    # where an init is cut off that has begun to replace an object, nothing tells its upload from somebody else's
    Twist.OVERWRITE: {("succeeded", None), ("failed", "upload_in_progress")},
}
#: What a worker may hold that has no checkpoint: being sent, or sent and waiting for company.
_HELD_BYTES = most_tasks(THREADS) * SLICE_BYTES
_LOST, _CORRUPT, _TWICE = ("accepted", "submits"), ("objects", "sends", "checkpoints", "strangers"), ("finishes",)


class Judgement:
    """Judges a run that is quiet; the database still runs."""

    def __init__(self, cluster: Cluster, told: Told, log: ActLog) -> None:
        """Look at everything; what is `wrong` and the `figures` stand then.

        Args:
            cluster: whose.
            told: what its clients were promised.
            log: what was done to it.
        """
        self._cluster, self._told, self._log = cluster, told, log
        self.report: Report = check(
            cluster.database.url,
            recorded=[cluster.history],
            journals=[cluster.store.journal],
            stored=Folder(cluster.folder / "data", BUCKET),
            secrets=(SECRET_KEY,),
        )
        rows = cluster.sql("SELECT id::text, key, state, error->>'code' AS code FROM job")
        self._jobs = {row["id"]: row for row in rows}
        self.wrong = [
            *told.faults,
            *log.faults,
            *map(str, self.report.violations),
            *self._ends(),
            *_told_by_logs(cluster),
        ]
        self._times = Recoveries(log, cluster.sql)
        self.figures = self._figures()

    def _ends(self) -> Iterator[str]:
        """Each errand has come to the end that its client can expect."""
        for kept in self._told.kept.values():
            row = self._jobs.get(kept.job)
            if row is None or row["state"] not in FINAL:
                continue  # told by the checker
            twist, end = kept.errand.twist, (row["state"], row["code"])
            if end not in _ENDS.get(twist, {("succeeded", None)}):
                yield f"end: job {kept.job} for {row['key']} ({twist}) is {row['state']}, {row['code']}"

    def hold_to_targets(self) -> None:
        """Note as wrong what took longer than it may with the timers as shipped."""
        times = self._times
        for what, seconds, most_s in (
            ("99 % of what killed workers held was claimed again", times.after_kills().share(0.99), 15.0),
            ("what stopped workers held was claimed again", times.after_stops().share(1.0), 2.0),
            ("what the broker lost was claimed after its return", times.after_broker_losses().share(1.0), 5.0),
            ("a claim followed PostgreSQL's return", times.after_returns("database_restarted").share(1.0), 5.0),
            ("a dispatch followed the leader's death", times.after_leaders().share(1.0), 5.0),
        ):
            if seconds > most_s:
                self.wrong.append(f"target: {what} only within {seconds:.1f} s, not {most_s:g} s")
        if again := sum(times.sent_twice("worker_stopped", since="asked").values()):
            self.wrong.append(f"target: {again} bytes were sent twice after SIGTERM")

    def _figures(self) -> list[tuple[str, str]]:
        """What is worth a line, as (name, value)."""
        found, counts = self.report.figures, self._log.counts()
        return [
            ("jobs", f"{sum(found.jobs.values())}: {_listed(found.jobs)}"),
            ("lost / corrupt / finished twice / stuck", " / ".join(map(str, self._verdicts()))),
            ("worker processes killed", f"{_sum(counts, WORKER_KILLS)} ({found.workers_dead} judged dead in all)"),
            ("broker losses", f"{_sum(counts, BROKER_LOSSES)}"),
            ("PostgreSQL restarts (immediate)", f"{counts['database_restarted']}"),
            ("store restarts", f"{counts['store_killed']}"),
            ("all acts", _listed(counts)),
            ("claims of slices", f"{found.claims}, {found.claims_lapsed} ended without a checkpoint"),
            ("checkpoints", f"{found.checkpoints}, {found.checkpoints_undone} taken back as the store had not kept it"),
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
        """What was sent twice; a worker that was killed may have held as many slices as it has threads and ahead."""
        by_killed = self._times.sent_twice(*WORKER_KILLS, since="killed")
        if (most := max(by_killed.values(), default=0)) > _HELD_BYTES:
            self.wrong.append(f"twice: {most} bytes were sent twice for one killed worker with {THREADS} threads")
        yield "bytes sent twice, whatever the cause", f"{self.report.figures.bytes_sent_twice:,}"
        bound = f"{_HELD_BYTES:,} a worker were possible"
        yield "  of these for killed workers", f"{sum(by_killed.values()):,}; at most {most:,}, {bound}"

    def _recoveries(self) -> Iterator[tuple[str, str]]:
        times = self._times
        yield "seconds from SIGKILL of a worker until its work was given back", str(times.noticed())
        yield "  until it was claimed again, in its turn", str(times.after_kills())
        yield "  from SIGTERM, the same", str(times.after_stops())
        yield "  from the broker's return until what it had lost was claimed", str(times.after_broker_losses())
        yield "  from PostgreSQL's return until the next claim", str(times.after_returns("database_restarted"))
        yield "  from SIGKILL of the leader until the next dispatch", str(times.after_leaders())


def _told_by_logs(cluster: Cluster) -> Iterator[str]:
    for log in cluster.logs():
        with log.open(errors="replace") as lines:
            for line in lines:
                if any(word in line for word in _NEVER_LOGGED):
                    yield f"log: {log.name}: {line.strip()[:500]}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _sum(counts: Counter[str], names: tuple[str, ...]) -> int:
    return sum(counts[name] for name in names)
