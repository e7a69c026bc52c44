"""Removes all that a drill has made. A failed step does not stop the others; the report names what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from worker.drill import watch
from worker.drill.proof import ANSWER_S
from worker.http.deadline import Deadline
from worker.jobs.states import FINAL
from worker.stores.base import AbortSkipped
from worker.telemetry.redact import first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from worker.client.api import Client
    from worker.db.pool import Database
    from worker.drill.canary import Canary, Death
    from worker.drill.report import Report
    from worker.stores.base import StoreDriver

END_S = 20.0
"""How long the clean-up waits for a cancelled job to end, and then for the last lease to end."""
_POLL_INTERVAL_S = 0.1


@dataclass(slots=True)
class Cleaning:
    """The clean-up of one drill."""

    drill: str
    client: Client
    database: Database
    store: StoreDriver
    report: Report
    end_s: float = END_S

    def run(self, canary: Canary | None, death: Death | None, file: Path) -> None:
        """Stop the canary, end the jobs, delete their objects, remove the file; report success or what is left."""
        before = self.report.failures
        if canary is not None:
            self._try(canary.stop, "the canary may still run", f"kill {canary.pid}.")
        jobs: list[watch.DrillJob] = []
        show = f"sliceway jobs list --label drill={self.drill}"
        self._try(lambda: jobs.extend(self._jobs()), "the drill's jobs are not known", f"`{show}`, then cancel them.")
        for job in jobs:
            cancel = f"`sliceway jobs cancel {job.id}`; delete the object {job.key!r} if there is one."
            self._try(partial(self._end, job), f"job {job.id}", cancel)
        self._try(lambda: file.unlink(missing_ok=True), f"the file {file}", f"rm {file}.")
        wait = partial(self._wait_for_leases, [job.id for job in jobs], death)
        self._try(wait, "leases", "`sliceway doctor` shows the workers and the dispatcher.")
        if self.report.failures == before:
            self.report.ok("cleaned up", "canary, jobs, objects and file are gone; nothing is leased any more")

    def _try(self, step: Callable[[], object], what: str, how: str) -> None:
        try:
            step()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the other steps must still run
            advice = error.advice if isinstance(error, LeftBehind) else how
            self.report.failed("left behind", f"{what}: {first_line(error)}", advice)

    def _jobs(self) -> list[watch.DrillJob]:
        with self.database.connection() as tx:
            return watch.jobs_of(tx, self.drill)

    def _end(self, job: watch.DrillJob) -> None:
        """Cancel a live job, then remove its object and its unfinished upload from the store.

        Raises:
            LeftBehind: the job does not end, or the store keeps something.
        """
        if job.state not in FINAL:
            self.client.cancel(str(job.id))
            job = self._final(job.id)
        if not self.store.remove(job.key, f"sliceway/{job.id}/{job.epoch}", Deadline(ANSWER_S)):
            raise LeftBehind(f"an object that is not the drill's is at {job.key!r}", "Find out its owner.")
        outcome = self.store.abort(job.key, None, Deadline(ANSWER_S))  # no one else uses the drill's key
        if isinstance(outcome, AbortSkipped):
            advice = "Nothing: the store lets it expire; or delete it there."
            raise LeftBehind(f"{job.key!r}: {outcome.reason}", advice)

    def _final(self, job_id: UUID) -> watch.DrillJob:
        until_s = time.monotonic() + self.end_s
        while True:
            job = next(job for job in self._jobs() if job.id == job_id)
            if job.state in FINAL:
                return job
            if time.monotonic() > until_s:
                advice = f"Start a worker if none runs: it cleans up by itself; `sliceway jobs show {job_id}` shows it."
                raise LeftBehind(f"it is still {job.state}: it waits for a worker", advice)
            time.sleep(_POLL_INTERVAL_S)

    def _wait_for_leases(self, jobs: list[UUID], death: Death | None) -> None:
        worker = death.worker if death else None
        until_s = time.monotonic() + (0.0 if self.report.failures else self.end_s)
        while True:
            with self.database.connection() as tx:
                held = watch.held(tx, jobs, worker)
                ended = worker is None or watch.ended(tx, worker)
            if not held and ended:
                return
            if time.monotonic() > until_s:
                row = "" if ended else "; the canary's row says that it lives"
                advice = "Start a worker if none runs: the next dispatcher takes them back by itself."
                raise LeftBehind(f"{held} steps and slices are dispatched or leased{row}", advice)
            time.sleep(_POLL_INTERVAL_S)


class LeftBehind(Exception):
    """The clean-up left something; the text says what, ``advice`` says what to do."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice
