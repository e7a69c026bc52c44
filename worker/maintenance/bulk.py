"""Carries out bulk actions, a batch at a time: a long duty of the leader."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from worker.jobs import bulk
from worker.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from worker.config.settings import Settings
    from worker.db.pool import Connection

log = get_logger(__name__)

FIRST_JOBS, MAX_JOBS = 25, 200
"""Of a batch; the size follows the time that batches take, since a retry also writes the slices of a job."""
SLOW_S = 0.15
"""A batch that takes longer is followed by one of half its size: its locks hold up the jobs' own work."""
PAUSE_S = 0.05
"""Between two batches that had jobs."""
RUN_S = 10.0
"""The other long duties wait no longer than this."""


class BulkActions:
    """The duty; it is safe beside another leader's, since a batch locks the row of its action."""

    name = "bulk"
    every_s = 1.0

    def __init__(self, settings: Settings) -> None:
        """Take the profiles from the settings: a retry is refused where they do not serve the job's tenant."""
        self._live = settings.live_profiles
        self._jobs = FIRST_JOBS
        self._pause = threading.Event()

    def run(self, tx: Connection, still_leads: Callable[[], bool]) -> None:
        """Take batches of all bulk actions in turns, until they are done or the time is up."""
        until_s = time.monotonic() + RUN_S
        waiting = bulk.running(tx)
        while waiting:
            for action in list(waiting):
                if not still_leads() or time.monotonic() >= until_s:
                    return
                progress = self._batch(tx, action)
                if progress is None or progress.finished:
                    waiting.remove(action)
                if progress is not None and progress.taken:
                    self._pause.wait(PAUSE_S)

    def _batch(self, tx: Connection, action: UUID) -> bulk.Progress | None:
        began_s = time.monotonic()
        with tx.transaction():
            progress = bulk.run_batch(tx, action, self._live.profiles, self._jobs)
        took_s = time.monotonic() - began_s
        if took_s > SLOW_S:
            self._jobs = max(1, self._jobs // 2)
        elif took_s < SLOW_S / 3:
            self._jobs = min(MAX_JOBS, self._jobs * 2)
        if progress is not None and progress.finished:
            log.info("bulk.done", bulk_action=str(action))
        return progress
