"""`sliceway drill`: a worker process of its own dies in the middle of a slice; the others are timed at taking over."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.client.api import Client, RefusedByApi
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
"""How many jobs are enqueued until a slice of one goes to the canary."""
START_S = 30.0
LOOK_S = 0.05


class DrillFailed(SlicewayError):
    """A crash was not survived as promised, or something of the drill was left behind."""

    code = "drill_failed"
    advice = "See what to do above."


def run(site: Site, environ: Mapping[str, str], report: Report) -> None:
    """Drill, tell every step, and leave nothing behind.

    Raises:
        NothingProven: nothing was killed.
        DrillFailed: something was not as promised; the report says what.
        Unreachable: the API or the database does not answer.
    """
    report.figures.limit_s = site.limit_s
    with Client.of(environ) as client, database_of(site.settings) as database, tempfile.TemporaryDirectory() as folder:
        drill = Drill(site, client, database, report, Path(folder))
        drill.check()
        try:
            drill.play(environ)
        finally:
            drill.clean_up()
    if report.failures:
        raise DrillFailed(f"{report.failures} of {len(report.steps)} steps were not as they should be")


class Drill:
    """One drill, from the first check to the last trace of it."""

    def __init__(self, site: Site, client: Client, database: Database, report: Report, folder: Path) -> None:
        self._site, self._client, self._database, self._report, self._folder = site, client, database, report, folder
        self._id = secrets.token_hex(4)
        self._prefix = f"sliceway-drill/{self._id}"
        self._file = site.root.path / f".sliceway-drill-{self._id}"
        self._canary: Canary | None = None
        self._death: Death | None = None
        self._until_s = time.monotonic() + site.timeout_s

    def check(self) -> None:
        """See that it can begin, and that the key opens what it takes, cleaning up included.

        Raises:
            NothingProven: it cannot.
        """
        self._report.add(ready(self._site, self._database))
        self._prefix = folder_of(self._site, self._database) + self._prefix
        try:
            self._client.enqueue(self._wish(1), self._prefix, dry_run=True)
            self._client.cancel(str(uuid.uuid4()))
        except RefusedByApi as error:
            if error.code != "not_found":  # that there is no such job is what a key that may cancel is told
                raise NothingProven(f"no drill was begun: {error.message}", advice=error.advice) from error

    def play(self, environ: Mapping[str, str]) -> None:
        """Kill the canary in the middle of a slice, and follow the others."""
        sha1 = self._write_file()
        self._canary = Canary(environ, self._prefix, self._folder)
        self._wait_for_canary(self._canary)
        self._death = death = self._send_until_killed(self._canary)
        with self._database.connection() as tx:
            killed = watch.clock(tx) - timedelta(seconds=time.monotonic() - death.at_s)
        self._tell_kill(death)
        found = self._follow(death, killed)
        if found.state == JobState.SUCCEEDED:
            self._tell_success(death, found)
            self._verify(death, found, sha1)
        else:
            self._tell_end(death, found)

    def clean_up(self) -> None:
        """Leave nothing behind, and say what could not be helped."""
        end_s = min(END_S, self._site.timeout_s)
        store = open_store(self._site.store)
        try:
            cleaning = Cleaning(self._id, self._client, self._database, store, self._report, end_s)
            cleaning.run(self._canary, self._death, self._file)
        finally:
            store.close()

    def _wish(self, attempt: int) -> dict[str, Any]:
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
        """Write random bytes, so that no store has them already; returns their SHA-1."""
        digest = hashlib.sha1(usedforsecurity=False)
        with self._file.open("xb") as file:
            self._file.chmod(0o644)  # the workers may be other users
            for start in range(0, self._site.size_bytes, MIB):
                piece = os.urandom(min(MIB, self._site.size_bytes - start))
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def _wait_for_canary(self, canary: Canary) -> None:
        until_s = min(self._until_s, time.monotonic() + START_S)
        while not canary.ready:
            if canary.gone or time.monotonic() > until_s:
                raise NothingProven(f"the canary, a worker process of the drill, did not start: {canary.last_words}")
            time.sleep(LOOK_S)
        self._report.ok("canary", f"a worker process of the drill has joined (pid {canary.pid})")

    def _send_until_killed(self, canary: Canary) -> Death:
        """Enqueue until a slice has gone to the canary.

        Raises:
            NothingProven: none has.
            DrillFailed: an upload failed by itself.
        """
        for attempt in range(1, ATTEMPTS + 1):
            self._report.figures.job = self._client.enqueue(self._wish(attempt), f"{self._prefix}-{attempt}")["id"]
            while (job := self._newest())["state"] not in FINAL and not canary.gone:
                if time.monotonic() > self._until_s:
                    what = f"job {job['id']} is {job['state']}, and no slice of it has reached the canary"
                    raise NothingProven(f"{what} in {self._site.timeout_s:.0f} s")
                time.sleep(LOOK_S)
            if canary.gone:
                if canary.death is None:
                    raise NothingProven(f"the canary has ended by itself: {canary.last_words}")
                return canary.death
            if job["state"] != JobState.SUCCEEDED:
                error = job["error"] or {"message": "somebody cancelled it"}
                self._report.failed("upload", f"job {job['id']}: {error['message']}", error.get("advice") or "")
                raise DrillFailed("the canary's upload failed before anything was killed")
            self._report.note("reached", f"other workers were faster with job {attempt} of at most {ATTEMPTS}")
        raise NothingProven(f"no slice of {ATTEMPTS} jobs has reached the canary")

    def _newest(self) -> dict[str, Any]:
        with self._database.connection() as tx:
            return watch.jobs_of(tx, self._id)[0]

    def _tell_kill(self, death: Death) -> None:
        where = f"slice {death.number + 1} of {self._newest()['slices_total']} of job {death.job}"
        sent = f"{death.sent_bytes:,} of its {death.size_bytes:,} bytes"
        self._report.ok("killed", f"the canary, by SIGKILL, in {where}, after {sent}")

    def _follow(self, death: Death, killed: datetime) -> watch.Recovery:
        """Watch the others take over, until the job has ended or the time is up."""
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
            time.sleep(LOOK_S)

    def _timed(self, step: str, what: str, seconds: float) -> None:
        text = f"{what}, {seconds:.1f} s after the kill"
        if seconds <= self._site.limit_s:
            self._report.ok(step, f"{text} (limit {self._site.limit_s:.0f} s)")
        else:
            advice = "See whether the other workers are overloaded, and whether all have the same settings."
            self._report.failed(step, f"{text}, later than {self._site.limit_s:.0f} s", advice)

    def _tell_end(self, death: Death, found: watch.Recovery) -> None:
        """Say what did not happen."""
        with self._database.connection() as tx:
            dead_after_s = self._site.settings.timers.dead_after_s
            others = watch.others(tx, self._site.root.name, dead_after_s, but=death.worker)
        advice = f"{others} other worker processes live; see `sliceway doctor` and their logs."
        if found.noticed_s is None:
            self._report.failed("noticed", "nobody has noticed the canary's death in time", advice)
        elif self._report.figures.taken_over_s is None:
            self._report.failed("taken over", "nobody has taken over its slice in time", advice)
        why = f": {found.error['message']}" if found.error else ""
        how = f"`sliceway jobs show {death.job}` shows it."
        self._report.failed("succeeded", f"job {death.job} is {found.state}{why}", how)

    def _tell_success(self, death: Death, found: watch.Recovery) -> None:
        figures, slices = self._report.figures, (found.result or {})["slices"]
        figures.succeeded_s, figures.slices, figures.sends = found.ended_s, slices["slices"], slices["sends"]
        again = slices["sends"] - slices["slices"]
        text = f"the job, {found.ended_s:.1f} s after the kill; {again} of {slices['slices']} slices sent again"
        if again == 1:
            figures.bytes_sent_twice = death.sent_bytes
            self._report.ok("succeeded", f"{text}: {death.sent_bytes:,} bytes twice")
        else:
            self._report.note("succeeded", f"{text}: more than the canary held, so the store or the network failed too")

    def _verify(self, death: Death, found: watch.Recovery, sha1: str) -> None:
        store, job = open_store(self._site.store), self._newest()
        try:
            mark = f"sliceway/{death.job}/{found.epoch}"
            wanted = Expected(job["key"], mark, self._site.size_bytes, sha1)
            self._report.add(verify(store, self._site.store, wanted))
        finally:
            store.close()
