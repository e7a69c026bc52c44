"""Checkpoints of one process that complete together share one statement and one commit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from worker.errors import StaleClaim
from worker.jobs import transitions

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from worker.db.pool import Database
    from worker.jobs.leases import Acknowledged
    from worker.jobs.rows import Checkpointed


BATCH_TARGET = 4
"""A commit of so many slices costs the database hardly more than one of a single slice."""
WAIT_S = 0.02
"""How long one waits for others: nothing beside a slice's time, and no slot is kept from the store meanwhile."""


class _Entry:
    __slots__ = ("checkpointed", "done", "error", "ready")

    def __init__(self, done: Acknowledged) -> None:
        self.done = done
        self.checkpointed: Checkpointed | None = None
        self.error: Exception | None = None
        self.ready = False


class Checkpoints:
    """Group commit: checkpoints that arrive during a commit share the next one, which waits a little for more."""

    def __init__(self, db: Database, worker: UUID, more: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        """Write nothing yet.

        Args:
            db: where checkpoints go.
            worker: whose claims are held.
            more: returns whether other slices of this process are being sent, so that more checkpoints may come.
            wait_s: how long a commit waits for them.
        """
        self._db, self._worker, self._more, self._wait_s = db, worker, more, wait_s
        self._waiting: list[_Entry] = []
        self._joining = threading.Condition(threading.Lock())
        self._commit = threading.Lock()

    def write(self, done: Acknowledged) -> Checkpointed:
        """Record the slice as done; return its job afterwards.

        Raises:
            StaleClaim: the claim is no longer held; nothing was changed for it.
            psycopg.Error: the database did not answer; may be written again.
        """
        entry = _Entry(done)
        with self._joining:
            self._waiting.append(entry)
            if not self._worth_waiting():
                self._joining.notify()
        with self._commit:
            if not entry.ready:
                self._write_all()
        if entry.error is not None:
            raise entry.error
        if entry.checkpointed is None:
            claim = done.claim
            raise StaleClaim(
                f"job {claim.job_id} slice {claim.number}: token {claim.token} is no longer held (checkpoint)"
            )
        return entry.checkpointed

    def _write_all(self) -> None:
        until_s = time.monotonic() + self._wait_s
        with self._joining:
            while self._worth_waiting() and (left_s := until_s - time.monotonic()) > 0:
                self._joining.wait(left_s)
            batch, self._waiting = self._waiting, []
        try:
            with self._db.connection() as tx:
                rows = transitions.checkpoint(tx, [entry.done for entry in batch], self._worker)
        except Exception as error:  # noqa: BLE001 - every waiting thread raises it, and decides for itself
            for entry in batch:
                entry.error = error
        else:
            for entry in batch:
                claim = entry.done.claim
                key = (claim.job_id, claim.number if claim.number is not None else -1, claim.token)
                entry.checkpointed = rows.get(key)
        for entry in batch:
            entry.ready = True

    def _worth_waiting(self) -> bool:
        return len(self._waiting) < BATCH_TARGET and self._more()
