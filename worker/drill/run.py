"""`sliceway drill`: the canary dies in the middle of a slice, and the drill measures when other workers take over."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from worker.client.answers import RefusedByApi
from worker.client.api import Client
from worker.client.environment import database_of
from worker.drill import watch
from worker.drill.canary import Canary, Death
from worker.drill.cleaning import END_S, Cleaning
from worker.drill.proof import Expected, verify
from worker.drill.site import NothingProven, Site, folder_of, ready
from worker.errors import SlicewayError
from worker.jobs.states import FINAL, JobState
from worker.protocols.spec import MIB
from worker.stores.registry import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from worker.db.pool import Database
    from worker.drill.report import Report

ATTEMPTS = 5
"""How many jobs the drill enqueues at most until a slice of one reaches the canary."""
START_S = 30.0
POLL_INTERVAL_S = 0.05


class DrillFailed(SlicewayError):
    """The installation did not survive the crash as promised, or the drill left something behind."""

    code = "drill_failed"
    advice = "See what to do above."


def run(site: Site, environ: Mapping[str, str], report: Report) -> None:
    """Run a drill, report every step, and clean up.

    Raises:
        NothingProven: nothing was killed.
        DrillFailed: a step failed; the report says which.
        Unreachable: the API or the database does not answer.
    """
    report.figures.limit_s = site.limit_s
    with Client.of(environ) as client, database_of(site.settings) as database, tempfile.TemporaryDirectory() as folder:
        drill = Drill(site, client, database, report, Path(folder))
        drill.check()
        try:
            drill.perform(environ)
        finally:
            drill.clean_up()
    if report.failures:
        raise DrillFailed(f"{report.failures} of {len(report.steps)} steps were not as they should be")


class Drill:
    """One drill, from the first check to the clean-up."""

    def __init__(self, site: Site, client: Client, database: Database, report: Report, folder: Path) -> None:
        self._site, self._client, self._database, self._report, self._folder = site, client, database, report, folder
        self._id = secrets.token_hex(4)
        self._prefix = f"sliceway-drill/{self._id}"
        self._file = site.root.path / f".sliceway-drill-{self._id}"
        self._canary: Canary | None = None
        self._death: Death | None = None
        self._until_s = time.monotonic() + site.timeout_s

    def check(self) -> None:
        """Check that the drill can begin, and that the API key has the scopes for it and for the clean-up.

        Raises:
            NothingProven: the drill cannot begin.
        """
        self._report.add(ready(self._site, self._database))
        self._prefix = folder_of(self._site, self._database) + self._prefix
        try:
            self._client.enqueue(self._job_spec(1), self._prefix, dry_run=True)
            self._client.cancel(str(uuid.uuid4()))
        except RefusedByApi as error:
            if error.code != "not_found":  # the API answers so only to a key that may cancel
                raise NothingProven(f"no drill was begun: {error.message}", advice=error.advice) from error

    def perform(self, environ: Mapping[str, str]) -> None:
        """Have the canary die in the middle of a slice, and follow the other workers."""
        sha1 = self._write_file()
        self._canary = Canary(environ, self._prefix, self._folder)
        self._wait_for_canary(self._canary)
        self._death = death = self._send_until_killed(self._canary)
        with self._database.connection() as tx:
            killed = watch.clock(tx) - timedelta(seconds=time.monotonic() - death.at_s)
        self._report_kill(death)
        found = self._follow(death, killed)
        if found.state == JobState.SUCCEEDED:
            self._report_success(death, found)
            self._verify(death, found, sha1)
        else:
            self._report_failure(death, found)

    def clean_up(self) -> None:
        """Remove all that the drill has made, and report what is left."""
        end_s = min(END_S, self._site.timeout_s)
        store = open_store(self._site.store)
        try:
            cleaning = Cleaning(self._id, self._client, self._database, store, self._report, end_s)
            cleaning.run(self._canary, self._death, self._file)
        finally:
            store.close()

    def _job_spec(self, attempt: int) -> Mapping[str, object]:
        return {
            "source": {"kind": "file", "root": self._site.root.name, "path": self._file.name},
            "store": self._site.store.name,
            "key": f"{self._prefix}-{attempt}",
            "slice_size": self._site.slice_bytes,
            "priority": 0,
            "labels": {"drill": self._id},
            "retry_for": "1h",
        }

    def _write_file(self) -> str:
        """Write random bytes, which no store can have already; returns their SHA-1."""
        digest = hashlib.sha1(usedforsecurity=False)
        with self._file.open("xb") as file:
            self._file.chmod(0o644)  # the workers may run as other users
            for start in range(0, self._site.size_bytes, MIB):
                piece = os.urandom(min(MIB, self._site.size_bytes - start))
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def _wait_for_canary(self, canary: Canary) -> None:
        until_s = min(self._until_s, time.monotonic() + START_S)
        while not canary.ready:
            if canary.ended or time.monotonic() > until_s:
                raise NothingProven(f"the canary, a worker process of the drill, did not start: {canary.last_log_line}")
            time.sleep(POLL_INTERVAL_S)
        self._report.ok("canary", f"a worker process of the drill has joined (pid {canary.pid})")

    def _send_until_killed(self, canary: Canary) -> Death:
        """Enqueue jobs until a slice of one has reached the canary.

        Raises:
            NothingProven: no slice has reached the canary.
            DrillFailed: a job failed before the kill.
        """
        for attempt in range(1, ATTEMPTS + 1):
            job_spec = self._job_spec(attempt)
            self._report.figures.job = self._client.enqueue(job_spec, f"{self._prefix}-{attempt}")["id"]
            while (job := self._newest()).state not in FINAL and not canary.ended:
                if time.monotonic() > self._until_s:
                    what = f"job {job.id} is {job.state}, and no slice of it has reached the canary"
                    raise NothingProven(f"{what} in {self._site.timeout_s:.0f} s")
                time.sleep(POLL_INTERVAL_S)
            if canary.ended:
                if canary.death is None:
                    raise NothingProven(f"the canary has ended by itself: {canary.last_log_line}")
                return canary.death
            if job.state != JobState.SUCCEEDED:
                message, advice = (job.error["message"], job.error["advice"]) if job.error else ("it was cancelled", "")
                self._report.failed("upload", f"job {job.id}: {message}", advice)
                raise DrillFailed("the canary's upload failed before anything was killed")
            self._report.note("reached", f"other workers were faster with job {attempt} of at most {ATTEMPTS}")
        raise NothingProven(f"no slice of {ATTEMPTS} jobs has reached the canary")

    def _newest(self) -> watch.DrillJob:
        with self._database.connection() as tx:
            return watch.jobs_of(tx, self._id)[0]

    def _report_kill(self, death: Death) -> None:
        where = f"slice {death.number + 1} of {self._newest().slices_total} of job {death.job}"
        sent = f"{death.sent_bytes:,} of its {death.size_bytes:,} bytes"
        self._report.ok("killed", f"the canary, by SIGKILL, in {where}, after {sent}")

    def _follow(self, death: Death, killed: datetime) -> watch.Recovery:
        """Watch the other workers take over until the job has ended or the time is over."""
        figures = self._report.figures
        while True:
            with self._database.connection() as tx:
                found = watch.recovery(tx, death, killed)
            ended = found.state in FINAL
            if figures.noticed_s is None and found.noticed_s is not None:
                figures.noticed_s = found.noticed_s
                self._timed("noticed", "its death", found.noticed_s)
            taken_s = found.taken_s if found.taken_s is not None or not ended else found.sent_s
            if figures.taken_over_s is None and taken_s is not None:
                figures.taken_over_s = taken_s
                self._timed("taken over", f"its slice, by {found.taken_by or 'another worker, at the latest'}", taken_s)
            if ended or time.monotonic() > self._until_s:
                return found
            time.sleep(POLL_INTERVAL_S)

    def _timed(self, step: str, what: str, seconds: float) -> None:
        text = f"{what}, {seconds:.1f} s after the kill"
        if seconds <= self._site.limit_s:
            self._report.ok(step, f"{text} (limit {self._site.limit_s:.0f} s)")
        else:
            advice = "See whether the other workers are overloaded, and whether all have the same settings."
            self._report.failed(step, f"{text}, later than {self._site.limit_s:.0f} s", advice)

    def _report_failure(self, death: Death, found: watch.Recovery) -> None:
        with self._database.connection() as tx:
            dead_after_s = self._site.settings.timers.dead_after_s
            others = watch.others(tx, self._site.root.name, dead_after_s, but=death.worker)
        advice = f"{others} other worker processes live; see `sliceway doctor` and their logs."
        if found.noticed_s is None:
            self._report.failed("noticed", "no dispatcher has noticed the canary's death in time", advice)
        elif self._report.figures.taken_over_s is None:
            self._report.failed("taken over", "no worker has taken over its slice in time", advice)
        why = f": {found.error['message']}" if found.error else ""
        how = f"`sliceway jobs show {death.job}` shows it."
        self._report.failed("succeeded", f"job {death.job} is {found.state}{why}", how)

    def _report_success(self, death: Death, found: watch.Recovery) -> None:
        figures, slices = self._report.figures, (found.result or {}).get("slices", {})
        figures.succeeded_s, figures.slices, figures.sends = found.ended_s, slices["slices"], slices["sends"]
        repeated = slices["sends"] - slices["slices"]
        text = f"the job, {found.ended_s:.1f} s after the kill; {repeated} of {slices['slices']} slices sent again"
        if repeated == 1:
            figures.bytes_sent_twice = death.sent_bytes
            self._report.ok("succeeded", f"{text}: {death.sent_bytes:,} bytes twice")
        else:
            self._report.note("succeeded", f"{text}: more than the canary held, so the store or the network failed too")

    def _verify(self, death: Death, found: watch.Recovery, sha1: str) -> None:
        store, job = open_store(self._site.store), self._newest()
        try:
            mark = f"sliceway/{death.job}/{found.epoch}"
            wanted = Expected(job.key, mark, self._site.size_bytes, sha1)
            self._report.add(verify(store, self._site.store, wanted))
        finally:
            store.close()
