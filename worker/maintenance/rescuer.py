"""Rescue: the leader ends dead workers, and takes back claims that no worker holds any more.

    sign                             why the claim is lost                              what the rescuer does
    -------------------------------  -------------------------------------------------  ------------------------------
    A worker's last heartbeat is     A process sends heartbeats from a thread of its    It declares the worker dead.
    older than `dead_after_s`.       own, whatever its tasks do.                        Each claim of the worker goes
                                                                                        back and counts one death.

    A worker has stopped.            The process has written so before its end.         Its claims go back. No death
                                                                                        is counted.

    The lease of a claim is over.    The lease is longer than the time limit of the     The claim goes back. No death
                                     work. Its worker sends nothing past that limit.    is counted.

    A claim's worker has no row.     The row of an ended worker is deleted after 7      The claim goes back. No death
                                     days.                                              is counted.

Silence shows a death only while heartbeats can arrive. A pause of this process or of the database hides the heartbeats
of every worker. So the rescuer declares a worker dead only after `dead_after_s` of unbroken rounds of the leader.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.jobs import transitions, workers
from worker.maintenance.quarantine import quarantine
from worker.telemetry.emit import emit

if TYPE_CHECKING:
    from worker.db.pool import Connection


class Rescuer:
    """Frees what dead, stopped and stuck workers hold. One thread uses it."""

    def __init__(self, dead_after_s: float) -> None:
        """Begin with no round seen."""
        self._dead_after_s = dead_after_s
        self._unbroken_since_s = 0.0
        self._last_round_s = 0.0

    def note_round(self) -> None:
        """Note that this process is awake; after a long gap since the last round the unbroken time begins anew."""
        now_s = time.monotonic()
        if now_s - self._last_round_s > self._dead_after_s / 2:
            self._unbroken_since_s = now_s
        self._last_round_s = now_s

    def note_database_lost(self) -> None:
        """Begin the unbroken time anew: without a database no worker could send a heartbeat."""
        self._unbroken_since_s = time.monotonic()

    def rescue(self, tx: Connection) -> None:
        """Declare silent workers dead, free what ended workers hold, and quarantine what has killed too many."""
        if time.monotonic() - self._unbroken_since_s >= self._dead_after_s:
            for worker in workers.end_dead_workers(tx, self._dead_after_s):
                emit("worker.dead", worker=worker.id, name=worker.name)
        for freed in transitions.rescue(tx):
            emit("claim.freed", job_id=freed.job_id, number=freed.number, deaths=freed.deaths)
            quarantine(tx, freed)
